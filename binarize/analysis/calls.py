"""Which calls and modules are what: tables of names, of functions and of methods; and what a call reads."""

from __future__ import annotations

import torch.fx
from torch import nn

from binarize.capture.leaves import CONVOLUTIONS

__all__ = [
    "ADD",
    "CONCAT",
    "CONV",
    "IDENTITY",
    "LAYERS",
    "LIKE",
    "LOWNEG",
    "MATRIX",
    "MULTIPLY",
    "NEW",
    "NONNEG",
    "NORM",
    "OTHER_ACTIVATIONS",
    "POOL",
    "SUBTRACT",
    "read_by",
]

CONV = frozenset(f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)) | {"deform_conv2d"}
# Products of two tensors; the first argument of the `add...` is what is added to the product.
MATRIX = frozenset(
    {
        "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "inner", "einsum", "tensordot", "multi_dot",
        "chain_matmul", "addmm", "addmv", "addbmm", "baddbmm", "grouped_mm", "_grouped_mm", "bilinear", "lstm", "gru",
        "rnn_tanh", "rnn_relu", "multi_head_attention_forward",
    }
)  # fmt: skip
LAYERS = (
    *CONVOLUTIONS, nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Embedding, nn.EmbeddingBag,
)  # fmt: skip
NONNEG = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "softmax"})
LOWNEG = frozenset(
    {"silu", "gelu", "hardswish", "mish", "elu", "selu", "celu", "leakyrelu", "gelutanh", "quickgelu"}
)
OTHER_ACTIVATIONS = frozenset(
    {"hardtanh", "prelu", "tanh", "threshold", "logsigmoid", "softsign", "tanhshrink"}
)
NORM = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
POOL = frozenset({"interpolate", "mean", "amax", "pad", "upsample"})
IDENTITY = frozenset(
    {
        "view", "reshape", "permute", "transpose", "flatten", "unflatten", "contiguous", "squeeze",
        "unsqueeze", "expand", "getitem", "chunk", "split", "unbind", "roll", "clone", "to", "float",
        "type_as", "movedim", "swapaxes", "expand_as", "dropout", "dropout2d", "feature_dropout",
        "pixel_shuffle", "pixel_unshuffle", "stack", "repeat", "T", "t", "mT", "narrow", "channel_shuffle",
        "detach", "view_as", "reshape_as", "checkpoint", "tile", "flip", "swapdims", "index_select",
        "tensor_split", "repeat_interleave", "split_with_sizes", "unfold", "__getitem__", "written", "half",
        "bfloat16", "squeeze_", "unsqueeze_", "as_subclass",
    }
)  # fmt: skip
ADD = frozenset({"add", "__add__", "__iadd__", "__radd__", "add_"})
SUBTRACT = frozenset({"sub", "__sub__", "__rsub__", "sub_", "__isub__"})
MULTIPLY = frozenset({"mul", "__mul__", "__imul__", "__rmul__", "mul_", "multiply"})
CONCAT = frozenset({"cat", "concat", "concatenate"})
# These take shape and type from a tensor and do not read its values.
LIKE = frozenset(f"{made}_like" for made in ("empty", "full", "ones", "rand", "randint", "randn", "zeros"))
NEW = frozenset(f"new_{made}" for made in ("empty", "empty_strided", "full", "ones", "zeros"))


def read_by(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes whose values a node reads, each once."""
    op = str(node.meta.get("op", node.op))
    if op in LIKE | NEW:
        return []
    if op.endswith("_as") and node.args:
        return [argument for argument in node.args[:1] if isinstance(argument, torch.fx.Node)]
    return node.all_input_nodes
