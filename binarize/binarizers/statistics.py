"""Numbers per filter of a weight: mean, mean magnitude, spread. All are float32 at least and keep their axes.

A filter is what gives one output channel: the slice of the weight at one index of the output axis, which is
axis 0 for convolutions and linear layers and axis 1 for transposed convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["EPS", "filter_axes", "filter_size", "mean_abs", "mean_and_variance", "wide"]

# Divisors are kept at or above this number where a paper has no guard of its own.
EPS = 1e-8


def wide(x: Tensor) -> Tensor:
    """x itself in float32 and float64, a float32 copy of float16 and bfloat16."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def filter_axes(w: Tensor, axis: int) -> tuple[int, ...]:
    """All axes but the output axis."""
    axis %= w.dim()
    return tuple(i for i in range(w.dim()) if i != axis)


def filter_size(w: Tensor, axis: int) -> int:
    """Weights per filter."""
    return w.numel() // max(w.shape[axis], 1)


def mean_abs(w: Tensor, axis: int) -> Tensor:
    """mean |w| per filter, never below `EPS`."""
    return wide(w).abs().mean(filter_axes(w, axis), keepdim=True).clamp_min(EPS)


def mean_and_variance(w: Tensor, axis: int, correction: int) -> tuple[Tensor, Tensor]:
    """Mean and variance per filter, divided by n - correction. One weight alone has variance 0."""
    if filter_size(w, axis) <= correction:
        correction = 0
    variance, mean = torch.var_mean(wide(w), filter_axes(w, axis), correction=correction, keepdim=True)
    return mean, variance
