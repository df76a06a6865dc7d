"""Float sums in the order of their indices: the same bits on every machine, with any number of threads.

Torch adds up a convolution in whatever order is fastest on the processor, mostly with fused multiply-adds, so the
float layers of a packed model differ in the last bit from one machine to the next. Inside `in_order()`, they are

    convolution, linear   s = 0;  s = s + x * w  over (input channel, ky, kx);  y = s + bias
    batch norm            y = x * a + b,  a = gamma / sqrt(var + eps) and b = beta - mean * a rounded from float64
    mean, average pool    s = 0;  s = s + x  over the axes in memory order;  y = s / count

with each product and each sum rounded by itself. Everything else that a packed model does is exact, or one
operation an element, and is left to torch. A dozen lines of C compute the same bits: exporters rely on that.

Example:
    with in_order(), torch.no_grad():
        logits = packed(x)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from binarize.capture.tape import operation_name

__all__ = ["average_windows", "in_order", "norm_affine"]


class in_order(TorchFunctionMode):
    """Float sums run in the order of their indices while this is active; slow, meant for checks."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        ours = _OURS.get(operation_name(func))
        return (func if ours is None else ours)(*args, **(kwargs or {}))


def norm_affine(
    mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(a, b) of a BatchNorm in evaluation mode, per channel, rounded once. Shapes: (C,) each."""
    factor = (var.double() + eps).rsqrt()
    if weight is not None:
        factor = factor * weight.double()
    offset = -mean.double() * factor
    if bias is not None:
        offset = offset + bias.double()
    return factor.to(mean.dtype), offset.to(mean.dtype)


def average_windows(size: int, out: int, kernel: int, stride: int, pad: int) -> list[tuple[int, int, int]]:
    """(first input, end, length with the padding counted) of each output of an average pool along one axis."""
    windows = []
    for i in range(out):
        start = i * stride - pad
        end = min(start + kernel, size + pad)
        windows.append((max(start, 0), min(end, size), end - start))
    return windows


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Tensor:
    axes = weight.dim() - 2
    if input.dim() == axes + 1:
        return _conv(input[None], weight, bias, stride, padding, dilation, groups)[0]
    steps, spread = _each(stride, axes), _each(dilation, axes)
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


def _sides(padding: object, reach: list[int]) -> list[int]:
    """What F.pad takes, the last axis first."""
    if padding == "same":
        return [side for r in reversed(reach) for side in (r // 2, r - r // 2)]
    if padding == "valid":
        return [0] * (2 * len(reach))
    return [side for side in reversed(_each(padding, len(reach))) for _ in range(2)]


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
    input: Tensor,
    dim: Sequence[int] | int | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    axes = sorted(axis % input.dim() for axis in (range(input.dim()) if dim is None else _tuple(dim)))
    values = input if dtype is None else input.to(dtype)
    others = [axis for axis in range(input.dim()) if axis not in axes]
    columns = values.permute(*others, *axes).flatten(len(others)) if axes else values[..., None]
    total = columns.new_zeros(columns.shape[:-1])
    for k in range(columns.shape[-1]):
        total = total + columns[..., k]
    y = total / columns.shape[-1]
    for axis in axes if keepdim else ():
        y = y.unsqueeze(axis)
    return y


def _avg_pool(
    input: Tensor,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    # Torch says how many windows there are.
    name = "avg_pool1d" if input.dim() < 4 and len(_tuple(kernel_size)) == 1 else "avg_pool2d"
    axes = int(name[-2])
    kernel, pads = _each(kernel_size, axes), _each(padding, axes)
    steps = kernel if stride in (None, ()) else _each(stride, axes)
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    shape = getattr(F, name)(input.to("meta"), *options).shape
    lines = [
        average_windows(input.shape[axis], shape[axis], kernel[axis], steps[axis], pads[axis])
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


def _adaptive_avg_pool(axes: int) -> Callable[[Tensor, Any], Tensor]:
    def pool(input: Tensor, output_size: object) -> Tensor:
        sizes = input.shape[-axes:]
        wanted = [n if w is None else w for n, w in zip(sizes, _each(output_size, axes))]
        if any(n % w for n, w in zip(sizes, wanted)):
            function: Callable[..., Tensor] = F.adaptive_avg_pool1d if axes == 1 else F.adaptive_avg_pool2d
            return function(input, output_size)  # windows of several sizes, which nobody exports
        return _avg_pool(input, tuple(n // w for n, w in zip(sizes, wanted)))

    return pool


def _each(value: object, axes: int) -> list[int]:
    values = _tuple(value)
    return list(values) * axes if len(values) == 1 else list(values)


def _tuple(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


_OURS: dict[str, Callable[..., Tensor]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "mean": _mean,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool(1),
    "adaptive_avg_pool2d": _adaptive_avg_pool(2),
}
