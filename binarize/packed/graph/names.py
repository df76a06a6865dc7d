"""The operators that a packed file's graph may name. Closed lists: no name outside them is ever looked up.

All of them compute with what they are given. None reads or writes a file, imports, evaluates text, or shows memory
that is not a tensor's own (`as_strided`, `set_`, `from_file` and their like are left out).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["ATTRIBUTES", "FUNCTIONS", "METHODS", "NAMES", "UNARY", "is_path"]


def _words(text: str) -> list[str]:
    return text.split()


# Of tensors and of `torch`, under the same names.
_BOTH = _words("""
abs add addmm all amax amin any argmax argmin argsort baddbmm bmm ceil chunk clamp clamp_max clamp_min clone cos
cumsum detach diff div divide dot eq erf exp expm1 flatten flip floor floor_divide fmod gather ge gt
index_select isinf isnan le lerp log log10 log1p log2 log_softmax logical_and logical_not logical_or logsumexp lt
masked_fill matmul max maximum mean min minimum mm movedim mul multiply narrow ne neg norm numel outer permute pow prod
reciprocal relu remainder repeat_interleave reshape roll round rsqrt select sigmoid sign sin softmax sort split
sqrt square squeeze std sub subtract sum swapaxes t take_along_dim tanh tensor_split tile topk transpose tril triu
true_divide trunc unbind unflatten unsqueeze var where
""")
_TORCH = _words("""
adaptive_avg_pool1d adaptive_max_pool1d arange avg_pool1d batch_norm broadcast_tensors cat celu cdist concat conv1d
conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d dropout einsum empty_like full full_like group_norm
hstack instance_norm layer_norm linspace max_pool1d max_pool2d max_pool3d meshgrid ones ones_like pixel_shuffle
pixel_unshuffle prelu relu_ rms_norm rnn_tanh selu stack std_mean var_mean vstack zeros zeros_like
""")
_METHODS = _words("""
abs_ add_ bfloat16 bool clamp_ clamp_max_ clamp_min_ contiguous cpu dim div_ double expand expand_as exp_ fill_ float
half int long masked_fill_ mul_ neg_ new_empty new_full new_ones new_tensor new_zeros relu_ repeat reshape_as sigmoid_
size sqrt_ stride sub_ tanh_ to type_as unfold view view_as zero_
""")
_FUNCTIONAL = _words("""
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d alpha_dropout avg_pool2d avg_pool3d
batch_norm celu channel_shuffle conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
cosine_similarity dropout dropout1d dropout2d dropout3d elu elu_ embedding feature_alpha_dropout fold gelu glu
group_norm hardsigmoid hardswish hardtanh hardtanh_ instance_norm interpolate layer_norm leaky_relu leaky_relu_ linear
local_response_norm log_softmax logsigmoid lp_pool2d max_pool1d max_pool2d max_pool3d mish normalize one_hot pad
pixel_shuffle pixel_unshuffle prelu relu relu6 relu_ rms_norm rrelu scaled_dot_product_attention selu sigmoid silu
softmax softmin softplus softshrink softsign tanh tanhshrink threshold unfold upsample
""")
_OPERATORS = _words("""
add and_ eq floordiv ge getitem gt iadd ifloordiv imul invert isub itruediv le lt matmul mod mul ne neg not_ or_ pow
sub truediv
""")
_MATH = ["ceil", "floor", "prod", "sqrt"]


def _closed() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    homes: tuple[tuple[str, Any, list[str]], ...] = (
        ("operator", operator, _OPERATORS),
        ("math", math, _MATH),
        ("torch", torch, [*_BOTH, *_TORCH]),
        ("functional", F, _FUNCTIONAL),
    )
    for home, module, names in homes:
        # A name that this version of torch does not have is one that no graph may use.
        found |= {f"{home}.{name}": getattr(module, name) for name in names if hasattr(module, name)}
    return found


# Of `operator`: these take one argument, all others two.
UNARY = frozenset(["operator.invert", "operator.neg", "operator.not_"])
# Name in the file -> function.
FUNCTIONS: dict[str, Callable[..., Any]] = _closed()
# Function -> name in the file.
NAMES: dict[Callable[..., Any], str] = {function: name for name, function in reversed(FUNCTIONS.items())}
# Methods of tensors (and of what they give: sizes, tuples).
METHODS = frozenset([*_BOTH, *_METHODS])
# Attributes of tensors that are read.
ATTRIBUTES = frozenset(["T", "device", "dtype", "mT", "ndim", "shape"])
# Letters of a name in a path, and names in a path.
_LONGEST, _DEEPEST = 100, 31


def is_path(path: str) -> bool:
    """Whether a packed file may name a module or a tensor so: any names that can be read."""
    parts = path.split(".")
    return len(parts) <= _DEEPEST and all(
        0 < len(part) <= _LONGEST and part.isprintable() and not part.startswith("__") for part in parts
    )
