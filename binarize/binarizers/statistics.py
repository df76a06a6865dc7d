"""Numbers per filter of a weight and per channel of an input.

A filter is what gives one output channel: the slice of the weight at one index of the output axis, which is
axis 0 for convolutions and linear layers and axis 1 for transposed convolutions. Statistics are float32 at
least.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.kernels import elementwise
from binarize.kernels.tiles import index_blocks

__all__ = [
    "EPS",
    "channel_mean",
    "channel_sum",
    "filter_axes",
    "filter_size",
    "mean_abs",
    "mean_and_variance",
    "per_channel",
    "smallest_divisor",
    "standardized",
    "wide",
]

# Divisors are kept at or above this number where a paper has no guard of its own.
EPS = 1e-8


def wide(x: Tensor) -> Tensor:
    """x itself in float32 and float64, a float32 copy of float16 and bfloat16. Shapes: any -> the same."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def filter_axes(w: Tensor, axis: int) -> tuple[int, ...]:
    """All axes but the output axis."""
    return tuple(i for i in range(w.dim()) if i != axis % w.dim())


def filter_size(w: Tensor, axis: int) -> int:
    """Weights per filter."""
    return w.numel() // max(w.shape[axis], 1)


class _MeanAbs(torch.autograd.Function):
    """mean |w| per filter by the kernels."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, rows: elementwise.Rows) -> Tensor:
        ctx.save_for_backward(w)
        native = elementwise.magnitudes(w, rows)
        assert native is not None
        return native.view(-1, *[1] * (w.dim() - 1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return w.sign() * (g / (w.numel() // w.shape[0])), None


def mean_abs(w: Tensor, axis: int) -> Tensor:
    """mean |w| per filter in the type of w, all axes kept; never so small that dividing by it overflows.

    Shapes: w (O, ...) -> (O, 1, ...).
    """
    rows = elementwise.filter_rows(w, axis)
    size = wide(w).abs().mean(filter_axes(w, axis), keepdim=True) if rows is None else _MeanAbs.apply(w, rows)
    return size.clamp_min(smallest_divisor(w.dtype)).to(w.dtype)


def smallest_divisor(dtype: torch.dtype) -> float:
    """`EPS`, or the smallest normal number of a type that cannot hold it (float16: 6.1e-5)."""
    return max(EPS, torch.finfo(dtype).tiny)


def mean_and_variance(w: Tensor, axis: int, correction: int) -> tuple[Tensor, Tensor]:
    """Mean and variance per filter, divided by n - correction. One weight alone has variance 0.

    Shapes: w (O, ...) -> (O, 1, ...) each.
    """
    if filter_size(w, axis) <= correction:
        correction = 0
    axes = filter_axes(w, axis)
    # torch.var_mean takes five times as long: it goes over the numbers one by one.
    mean = wide(w).mean(axes, keepdim=True)
    variance = torch.empty_like(mean)
    for at in index_blocks(w, axis):
        variance[at] = (wide(w[at]) - mean[at]).square_().sum(axes, keepdim=True)
    return mean, variance.div_(filter_size(w, axis) - correction)


def standardized(w: Tensor, axis: int, eps: float = 0.0) -> Tensor:
    """(w - mean) / sqrt(var + eps) per filter, var divided by n - 1, in float32 at least; autograd runs through both.

    A filter without spread is divided by 1.
    """
    axes, rest = filter_axes(w, axis), max(filter_size(w, axis) - 1, 1)
    moved = wide(w) - wide(w).mean(axes, keepdim=True)
    variance = moved.square().sum(axes, keepdim=True) / rest + eps
    return moved / torch.where(variance < EPS * EPS, 1.0, variance).sqrt()


def channel_mean(x: Tensor, channel_dim: int) -> Tensor:
    """The mean of each channel, accumulated in float32 at least. Shapes: x (N, C, ...) or (..., C) -> (C,)."""
    others = [i for i in range(x.dim()) if i != channel_dim % x.dim()]
    return x.mean(others, dtype=torch.promote_types(x.dtype, torch.float32))


def channel_sum(x: Tensor, channel_dim: int) -> Tensor:
    """The sum of each channel, accumulated in float32 at least. Shapes: x (N, C, ...) or (..., C) -> (C,)."""
    others = [i for i in range(x.dim()) if i != channel_dim % x.dim()]
    return x.sum(others, dtype=torch.promote_types(x.dtype, torch.float32))


def per_channel(parameter: Tensor, x: Tensor, channel_dim: int) -> Tensor:
    """A parameter of one number per channel, in the type of x and shaped for broadcasting against it."""
    shape = [1] * x.dim()
    shape[channel_dim] = -1
    return parameter.to(x.dtype).view(shape)
