"""Average pools with the sums in the order of their indices: see `in_order`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from binarize.exporters.c.resample import pool_taps, run_taps

__all__ = ["Axes", "Sizes", "adaptive_pool", "as_tuple", "average_pool", "each"]

# What torch takes: one number for all axes, or one for each; and one axis or several.
Sizes = int | tuple[int, ...] | list[int]
Axes = int | tuple[int, ...] | list[int] | None


def _windows(size: int, out: int, kernel: int, stride: int, pad: int) -> list[tuple[int, int, int]]:
    """(first input, end, length with the padding counted) of each output of an average pool along one axis."""
    windows = []
    for i in range(out):
        start = i * stride - pad
        end = min(start + kernel, size + pad)
        windows.append((max(start, 0), min(end, size), end - start))
    return windows


def average_pool(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """F.avg_pool1d and 2d."""
    # Torch says how many windows there are.
    name = "avg_pool1d" if input.dim() < 4 and len(as_tuple(kernel_size)) == 1 else "avg_pool2d"
    axes = int(name[-2])
    kernel, pads = each(kernel_size, axes), each(padding, axes)
    steps = kernel if stride in (None, ()) else each(stride, axes)
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    shape = getattr(F, name)(input.to("meta"), *options).shape
    lines = [
        _windows(input.shape[axis], shape[axis], kernel[axis], steps[axis], pads[axis])
        for axis in range(-axes, 0)
    ]
    y = input.new_empty(shape)
    for place in itertools.product(*[range(len(line)) for line in lines]):
        windows = [line[i] for line, i in zip(lines, place)]
        taps = itertools.product(*[range(first, end) for first, end, _ in windows])
        total = input.new_zeros(input.shape[: input.dim() - axes])
        count = 0
        for tap in taps:
            there: tuple[Any, ...] = (..., *tap)
            total, count = total + input[there], count + 1
        if count_include_pad:
            count = math.prod(length for _, _, length in windows)
        here: tuple[Any, ...] = (..., *place)
        y[here] = total / (divisor_override or count)
    return y


def adaptive_pool(axes: int) -> Callable[[Tensor, Any], Tensor]:
    """F.adaptive_avg_pool1d or 2d."""

    def pool(input: Tensor, output_size: Sizes) -> Tensor:
        sizes = input.shape[-axes:]
        wanted = [n if w is None else w for n, w in zip(sizes, each(output_size, axes))]
        if any(n % w for n, w in zip(sizes, wanted)):
            return run_taps(input, pool_taps(tuple(sizes), tuple(wanted)))
        return average_pool(input, tuple(n // w for n, w in zip(sizes, wanted)))

    return pool


def each(value: object, axes: int) -> list[int]:
    """One number an axis."""
    values = as_tuple(value)
    return list(values) * axes if len(values) == 1 else list(values)


def as_tuple(value: object) -> tuple[Any, ...]:
    """One value, or several, as several."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
