"""Torch's names of operations that need no code or only move numbers, and what is said of those that have none."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DRAWS", "LIKE", "MOVES", "SAME", "refused_operations", "way_out"]

# Operations that leave the numbers and their order alone.
SAME = frozenset(("clone", "contiguous", "cpu", "detach", "float", "requires_grad", "type_as"))
# Operations that yield views, or numbers of their first argument in another order.
MOVES = frozenset(
    ("H", "T", "__getitem__", "broadcast_to", "channel_shuffle", "chunk", "diagonal", "dsplit", "expand", "expand_as",
     "flatten", "flip", "fliplr", "flipud", "gather", "hsplit", "index_select", "mH", "mT", "moveaxis", "movedim",
     "narrow", "native_channel_shuffle", "permute", "pixel_shuffle", "pixel_unshuffle", "ravel", "repeat",
     "repeat_interleave", "reshape", "reshape_as", "roll", "rot90", "select", "split", "split_with_sizes", "squeeze",
     "swapaxes", "swapdims", "t", "take_along_dim", "tensor_split", "tile", "transpose", "tril", "triu", "unbind",
     "unflatten", "unfold", "unsqueeze", "view", "view_as", "vsplit")
)  # fmt: skip


# They take nothing of a tensor but its sizes.
LIKE = frozenset(
    (
        "empty_like",
        "full_like",
        "new_empty",
        "new_full",
        "new_ones",
        "new_tensor",
        "new_zeros",
        "ones_like",
        "zeros_like",
    )
)
DRAWS = frozenset(
    ("bernoulli", "multinomial", "normal", "normal_", "rand", "rand_like", "randint", "randn", "randn_like", "randperm",
     "uniform_")
)  # fmt: skip

_OTHER = "try --format onnx, or rewrite it with operations that docs/reference/operations.md lists"
_THREE = "C takes 1-d and 2-d layers; try --format onnx"
# Operations without C code -> why, and what to do.
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
                    "a recurrent layer; replace it by convolutions over time, or try --format onnx"),
    **dict.fromkeys(("conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d",
                     "adaptive_max_pool3d"), _THREE),
    **dict.fromkeys(DRAWS, "it draws random numbers; take them as an input of the model"),
    **dict.fromkeys(("max_pool1d_with_indices", "max_pool2d_with_indices", "max_unpool1d", "max_unpool2d"),
                    "the places of maxima; pool without return_indices, and interpolate upwards"),
    **dict.fromkeys(("double", "half", "bfloat16"), "C computes in float32; convert the model first (model.float())"),
    **dict.fromkeys(("nonzero", "unique", "topk", "sort", "argsort", "masked_select"),
                    "what it yields depends on the numbers; leave it to the code around the network"),
}  # fmt: skip


def way_out(op: str) -> str:
    """What is said of an operation that has no C code."""
    reason = _REFUSED.get(op)
    return (
        f"there is no C code for the operation {op}; {_OTHER}"
        if reason is None
        else f"{op} has no C code: {reason}"
    )


def refused_operations() -> list[tuple[str, str]]:
    """Operations that are known to have no C code, and what to do."""
    return sorted(_REFUSED.items())
