"""Torch's functions that add up many numbers, with the sums in the order of their indices: see `in_order`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.exporters.c.pools import Axes, Sizes, adaptive_pool, as_tuple, average_pool, each
from binarize.exporters.c.resample import interpolation_taps, run_taps
from binarize.exporters.c.transcendental import expo, logarithm, power, square_root

__all__ = ["SUMS", "norm_affine"]


def norm_affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(a, b) of a BatchNorm in evaluation mode, per channel, rounded once."""
    factor = (var.double() + eps).rsqrt()
    if weight is not None:
        factor = factor * weight.double()
    offset = -mean.double() * factor
    if bias is not None:
        offset = offset + bias.double()
    return factor.to(mean.dtype), offset.to(mean.dtype)


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.dim() - 2
    if input.dim() == axes + 1:
        return _conv(input[None], weight, bias, stride, padding, dilation, groups)[0]
    steps, spread = each(stride, axes), each(dilation, axes)
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], spread)]
    x = F.pad(input, _sides(padding, reach))
    size = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, steps)]
    x = x.unflatten(1, (groups, 1, -1))
    filters = weight.unflatten(0, (groups, -1))
    total = x.new_zeros(x.shape[0], groups, filters.shape[1], *size)
    taps = list(itertools.product(*[range(k) for k in weight.shape[2:]]))
    for channel in range(weight.shape[1]):
        for tap in taps:
            seen = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, spread, size, steps)
            )
            here: tuple[Any, ...] = (slice(None), slice(None), channel, *tap)
            there: tuple[Any, ...] = (slice(None), slice(None), slice(None), channel, *seen)
            total = total + x[there] * filters[here].view(1, groups, -1, *[1] * axes)
    y = total.flatten(1, 2)
    return y if bias is None else y + bias.view(-1, *[1] * axes)


def _sides(padding: Sizes | str, reach: list[int]) -> list[int]:
    """What F.pad takes, the last axis first."""
    if padding == "same":
        return [side for r in reversed(reach) for side in (r // 2, r - r // 2)]
    if padding == "valid":
        return [0] * (2 * len(reach))
    return [side for side in reversed(each(padding, len(reach))) for _ in range(2)]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    total = input.new_zeros(*input.shape[:-1], weight.shape[0])
    for k in range(weight.shape[1]):
        total = total + input[..., k : k + 1] * weight[:, k]
    return total if bias is None else total + bias


def _batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    assert not training, "sums in a fixed order are for evaluation mode"
    a, b = norm_affine(running_mean, running_var, weight, bias, eps)
    shape = (1, -1, *[1] * (input.dim() - 2))
    return input * a.view(shape) + b.view(shape)


def _mean(
    input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    columns, axes = _columns(input if dtype is None else input.to(dtype), dim)
    return _with_axes(_added(columns) / columns.shape[-1], axes if keepdim else ())


def _conv_transpose(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **keywords: Any
) -> Tensor:
    """A convolution with the kernel turned around, over the image with zeros between its pixels."""
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    given = {**dict(zip(names, (1, 0, 0, 1, 1))), **dict(zip(names, args)), **keywords}
    axes, groups = weight.dim() - 2, given["groups"]
    if input.dim() == axes + 1:
        return _conv_transpose(input[None], weight, bias, **given)[0]
    steps, pads, more, spread = (
        each(given[name], axes) for name in ("stride", "padding", "output_padding", "dilation")
    )
    sizes = [(n - 1) * s + 1 for n, s in zip(input.shape[2:], steps)]
    x = input.new_zeros(*input.shape[:2], *sizes)
    there: Any = (..., *[slice(None, None, s) for s in steps])
    x[there] = input
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], spread)]
    sides = [side for r, p, m in zip(reach, pads, more) for side in (r - p + m, r - p)][::-1]
    turned = (
        weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(tuple(range(2, weight.dim())))
    )
    return _conv(F.pad(x, sides), turned, bias, 1, 0, given["dilation"], groups)


def _sum(
    input: Tensor, dim: Axes = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    columns, axes = _columns(input if dtype is None else input.to(dtype), dim)
    return _with_axes(_added(columns), axes if keepdim else ())


def _added(columns: Tensor) -> Tensor:
    """The last axis, summed in the order of its indices. Shapes: (..., n) -> (...)."""
    total = columns.new_zeros(columns.shape[:-1])
    for k in range(columns.shape[-1]):
        total = total + columns[..., k]
    return total


def _with_axes(y: Tensor, axes: Iterable[int]) -> Tensor:
    """With axes of one place put in where others were summed away."""
    for axis in axes:
        y = y.unsqueeze(axis)
    return y


def _columns(input: Tensor, dim: Axes) -> tuple[Tensor, list[int]]:
    """(the numbers that are added up as the last axis, which axes these are)."""
    axes = sorted(axis % input.dim() for axis in (range(input.dim()) if dim in (None, ()) else as_tuple(dim)))
    others = [axis for axis in range(input.dim()) if axis not in axes]
    return (input.permute(*others, *axes).flatten(len(others)) if axes else input[..., None]), axes


def _cumsum(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    parts: list[Tensor] = []
    for part in input.unbind(dim):
        parts.append(part + (parts[-1] if parts else torch.zeros_like(part)))
    return torch.stack(parts, dim)


def _softmax(input: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    y = expo(input - input.amax(dim, keepdim=True))
    return y / _sum(y, dim, keepdim=True)


def _log_softmax(input: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    less = input - input.amax(dim, keepdim=True)
    return less - logarithm(_sum(expo(less), dim, keepdim=True))


def _matmul(input: Tensor, other: Tensor) -> Tensor:
    if input.dim() == 1:
        return _matmul(input[None], other).squeeze(-2)
    if other.dim() == 1:
        return _matmul(input, other[:, None]).squeeze(-1)
    stack = torch.broadcast_shapes(input.shape[:-2], other.shape[:-2])
    total = input.new_zeros(*stack, input.shape[-2], other.shape[-1])
    for k in range(input.shape[-1]):
        total = total + input[..., :, k : k + 1] * other[..., k : k + 1, :]
    return total


def _interpolate(input: Tensor, size: Sizes | None = None, *args: Any, **keywords: Any) -> Tensor:
    names = ("scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
    options = {**dict(zip(names, (None, "nearest", None, None, False))), **dict(zip(names, args)), **keywords}
    there = F.interpolate(input, size, **options)
    if options["mode"].startswith("nearest"):
        return there
    return run_taps(input, interpolation_taps(tuple(input.shape[2:]), tuple(there.shape[2:]), options))


def _pow(input: Tensor, exponent: Tensor | float) -> Tensor:
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = float(exponent)
    if not isinstance(exponent, (int, float)) or not isinstance(input, Tensor):
        return torch.pow(input, exponent)
    exact = {1: lambda x: x, 2: lambda x: x * x, 3: lambda x: x * x * x, 4: lambda x: (x * x) * (x * x),
             0.5: square_root, -1: lambda x: 1.0 / x, -0.5: lambda x: 1.0 / square_root(x)}  # fmt: skip
    return exact[exponent](input) if exponent in exact else power(input, float(exponent))


SUMS: dict[str, Callable[..., Tensor]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "mean": _mean,
    "sum": _sum,
    "cumsum": _cumsum,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "interpolate": _interpolate,
    "pow": _pow,
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "__matmul__"), _matmul),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "avg_pool1d": average_pool,
    "avg_pool2d": average_pool,
    "adaptive_avg_pool1d": adaptive_pool(1),
    "adaptive_avg_pool2d": adaptive_pool(2),
}
