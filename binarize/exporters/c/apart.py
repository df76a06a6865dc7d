"""Operations taken apart into simpler ones of torch: attention, norms, deviations, and sums of products by letters.

Inside `Apart` torch's own functions of these names are replaced. A recording made inside it shows the simpler operations,
and `in_order` runs the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function_unary

from binarize.capture.tape import operation_name
from binarize.exporters.c.attention import attention, einsum, heads
from binarize.exporters.c.pools import Axes
from binarize.exporters.c.transcendental import square_root

__all__ = ["APART", "Apart", "standardized"]


class Apart(TorchFunctionMode):
    """Takes operations apart while it is active."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        simpler = APART.get(operation_name(func))
        found = NotImplemented if simpler is None else simpler(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is NotImplemented else found


def standardized(x: Tensor, eps: float) -> Tensor:
    """Each row less its mean, over its deviation, the sums in the order of their indices. Shapes: (rows, n) -> same."""
    if has_torch_function_unary(x):
        return handle_torch_function(standardized, (x,), x, eps)
    off = x - _row_mean(x)
    return off * (1.0 / square_root(_row_mean(off * off) + eps))


def _row_mean(x: Tensor) -> Tensor:
    total = x.new_zeros(len(x), 1)
    for k in range(x.shape[1]):
        total = total + x[:, k : k + 1]
    return total / x.shape[1]


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    y = standardized(input.reshape(-1, math.prod(normalized_shape)), eps).reshape(input.shape)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    y = standardized(input.reshape(input.shape[0] * num_groups, -1), eps).reshape(input.shape)
    return _by_channel(y, weight, bias)


def _by_channel(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (y.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *args: Any,
    **keywords: Any,
) -> Any:
    names = ("weight", "bias", "use_input_stats", "momentum", "eps")
    given = {
        "weight": None,
        "bias": None,
        "use_input_stats": True,
        "eps": 1e-5,
        **dict(zip(names, args)),
        **keywords,
    }
    if not given["use_input_stats"]:
        return F.batch_norm(
            input, running_mean, running_var, given["weight"], given["bias"], False, 0.0, given["eps"]
        )
    y = standardized(input.reshape(input.shape[0] * input.shape[1], -1), given["eps"]).reshape(input.shape)
    return _by_channel(y, given["weight"], given["bias"])


def _rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    y = input * ((input * input).mean(axes, keepdim=True) + eps).rsqrt()
    return y if weight is None else y * weight


def _var(
    input: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = tuple(range(input.dim())) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    count = math.prod(input.shape[axis] for axis in axes)
    less = (1 if unbiased else 0) if correction is None else correction
    off = input - input.mean(axes, keepdim=True)
    return (off * off).sum(axes, keepdim=keepdim) / float(max(count - less, 0))


def _std(*args: Any, **keywords: Any) -> Tensor:
    return _var(*args, **keywords).sqrt()


def _norm(
    input: Tensor,
    p: object = "fro",
    dim: Axes = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Any:
    if p not in ("fro", 2, 1, None) or dtype is not None:
        return NotImplemented
    axes = tuple(range(input.dim())) if dim is None else dim
    if p == 1:
        return input.abs().sum(axes, keepdim=keepdim)
    return (input * input).sum(axes, keepdim=keepdim).sqrt()


def _vector_norm(
    input: Tensor,
    ord: object = 2,
    dim: Axes = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    return _norm(input, 2 if ord is None else ord, dim, keepdim, dtype)


def _normalize(input: Tensor, p: float = 2.0, dim: Axes = 1, eps: float = 1e-12, out: object = None) -> Any:
    size = _norm(input, p, dim, keepdim=True)
    return size if size is NotImplemented else input / size.clamp_min(eps)


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    sizes = [(x * x).sum(dim).sqrt().clamp_min(eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / (sizes[0] * sizes[1])


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def _response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    squares = F.pad(input * input, (*[0, 0] * (input.dim() - 2), size // 2, (size - 1) // 2))
    parts = [squares[:, i : i + input.shape[1]] for i in range(size)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return input / (total / float(size) * alpha + k).pow(beta)


def _logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    largest = input.amax(dim, keepdim=True)
    y = (input - largest).exp().sum(dim, keepdim=True).log() + largest
    return y if keepdim else y.squeeze(dim)


def _added(sign: float) -> Callable[..., Any]:
    """Sums with a factor, which torch rounds once on some processors and twice on others."""

    def add(input: Any, other: Any, *, alpha: float = 1, out: object = None) -> Any:
        return NotImplemented if alpha == 1 else input + other * (sign * alpha)

    return add


def _subtracted_from(input: Any, other: Any, *, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else other - input * alpha


APART: dict[str, Callable[..., Any]] = {
    "add": _added(1),
    "sub": _added(-1),
    "subtract": _added(-1),
    "rsub": _subtracted_from,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "rms_norm": _rms_norm,
    "var": _var,
    "std": _std,
    "norm": _norm,
    "linalg_vector_norm": _vector_norm,
    "linalg_norm": _vector_norm,
    "normalize": _normalize,
    "cosine_similarity": _cosine_similarity,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": heads,
    "einsum": einsum,
    "glu": _glu,
    "local_response_norm": _response_norm,
    "logsumexp": _logsumexp,
    "softmin": lambda input, dim=None, **more: (-input).softmax(dim),
    "tanhshrink": lambda input: input - input.tanh(),
    "addmm": lambda input, a, b: input + a @ b,
    "baddbmm": lambda input, a, b: input + a @ b,
    "addcmul": lambda input, a, b, value=1: input + a * b * value,
    "lerp": lambda input, end, weight: input + (end - input) * weight,
    "__rpow__": lambda exponent, base: (exponent * math.log(base)).exp(),
}  # fmt: skip
