"""Float convolutions, pools and interpolations as steps in C."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from binarize.exporters.c.call import Call
from binarize.exporters.c.elementwise import affine
from binarize.exporters.c.layers import as_image, transposed
from binarize.exporters.c.resample import Taps, interpolation_taps, pool_taps
from binarize.exporters.c.steps import Image, Value
from binarize.exporters.c.sums import norm_affine
from binarize.exporters.c.views import moved
from binarize.kernels.geometry import Geometry

__all__ = ["adaptive_pool", "batch_norm", "conv", "conv_transpose", "interpolate", "pool"]


def conv(axes: int) -> Callable[[Call], Value]:
    """F.conv1d and F.conv2d, of weights that the model holds."""

    def convolve(call: Call) -> Value:
        names = "input weight bias stride padding dilation groups"
        given = call.bound(names, bias=None, stride=1, padding=0, dilation=1, groups=1)
        x = _weighed(call, given, axes)
        weight, out = given["weight"], given["weight"].shape[0]
        height, width = as_image(call, x, axes)
        kernel = as_pair(tuple(weight.shape[2:]), axes)
        stride, dilation = (as_pair(given[name], axes) for name in ("stride", "dilation"))
        padding = _padding(given["padding"], axes, kernel, dilation)
        channels = weight.shape[1] * given["groups"]
        geometry = Geometry(channels, out, kernel, stride, padding, dilation, given["groups"])
        tables = {"weight": weight, "bias": given["bias"]}
        return call.add("conv", [x], call.shape, image=Image.of(geometry, height, width), tables=tables)

    return convolve


def _weighed(call: Call, given: dict[str, Any], axes: int) -> Value:
    if isinstance(given["weight"], Value) or isinstance(given["bias"], Value):
        raise call.refuse("a convolution whose weight is computed from the input has no C code")
    for name in ("weight", "bias"):
        table = given[name]
        if table is not None and table.dtype != torch.float32:
            raise call.refuse(f"its {name} is {table.dtype}; expected float32")
    return call.dense(given["input"])


def _padding(padding: object, axes: int, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    """(top, bottom, left, right)."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple(side for total in totals for side in (total // 2, total - total // 2))
    both = (*(0,) * (2 - axes), *each(padding, axes))
    return tuple(side for n in both for side in (n, n))


def conv_transpose(axes: int) -> Callable[[Call], Value]:
    """F.conv_transpose1d and 2d: a convolution over an image with zeros between its pixels."""

    def convolve(call: Call) -> Value:
        names = "input weight bias stride padding output_padding groups dilation"
        given = call.bound(names, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
        x = _weighed(call, given, axes)
        weight, groups = given["weight"], given["groups"]
        sizes = as_image(call, x, axes)
        window = SimpleNamespace(
            in_channels=weight.shape[0], out_channels=weight.shape[1] * groups, kernel=tuple(weight.shape[2:]),
            groups=groups, **{name: each(given[name], axes) for name in ("stride", "dilation", "padding")},
        )  # fmt: skip
        image = transposed(window, call.shape, sizes)
        turned = (
            weight.unflatten(0, (groups, -1))
            .transpose(1, 2)
            .flatten(0, 1)
            .flip(tuple(range(2, weight.dim())))
        )
        tables = {"weight": turned.contiguous(), "bias": given["bias"]}
        return call.add("conv", [x], call.shape, image=image, tables=tables)

    return convolve


def pool(kind: str, axes: int) -> Callable[[Call], Value]:
    """Max and average pools."""

    def over(call: Call) -> Value:
        if kind == "max_pool":
            names = "input kernel_size stride padding dilation ceil_mode return_indices"
        else:
            names = "input kernel_size stride padding ceil_mode count_include_pad divisor_override"
        given = call.bound(
            names, stride=None, padding=0, dilation=1, count_include_pad=True, divisor_override=None
        )
        if given.get("return_indices"):
            raise call.refuse("a pool that gives the places of its maxima has no C code")
        x = call.dense(given["input"])
        image = _pooled(call, x, given, axes)
        divisor = given["divisor_override"] or (-1 if given["count_include_pad"] else 0)
        numbers: dict[str, float] = {"divisor": divisor} if kind == "avg_pool" else {}
        return call.add(kind, [x], call.shape, image=image, numbers=numbers)

    return over


def adaptive_pool(kind: str, axes: int) -> Callable[[Call], Value]:
    """Adaptive pools: windows of one size are a pool, others sums of their own."""

    def over(call: Call) -> Value:
        given = call.bound("input output_size return_indices")
        if given.get("return_indices"):
            raise call.refuse("a pool that gives the places of its maxima has no C code")
        x = call.dense(given["input"])
        as_image(call, x, axes)
        sizes, wanted = x.shape[-axes:], call.shape[-axes:]
        if any(n % w for n, w in zip(sizes, wanted)):
            if kind == "max_pool":
                raise call.refuse(
                    f"an adaptive maximum from {sizes} to {wanted} has windows of several sizes"
                )
            return _tapped(call, x, pool_taps(sizes, wanted))
        kernel = tuple(n // w for n, w in zip(sizes, wanted))
        image = _pooled(call, x, {"kernel_size": kernel, "stride": None, "padding": 0}, axes)
        numbers: dict[str, float] = {"divisor": -1} if kind == "avg_pool" else {}
        return call.add(kind, [x], call.shape, image=image, numbers=numbers)

    return over


def _pooled(call: Call, x: Value, given: dict[str, Any], axes: int) -> Image:
    height, width = as_image(call, x, axes)
    line = (1,) * (2 - axes)
    kernel = (*line, *each(given["kernel_size"], axes))
    own = given["stride"] in (None, (), [])
    stride = kernel if own else (*line, *each(given["stride"], axes))
    top, left = (*(0,) * (2 - axes), *each(given["padding"], axes))
    dilation = (*line, *each(given.get("dilation", 1), axes))
    channels = x.size // (height * width)
    geometry = Geometry(channels, channels, kernel, stride, (top, top, left, left), dilation)  # type: ignore[arg-type]
    out_height, out_width = (1, *call.shape[-axes:])[-2:]
    return Image(geometry, height, width, out_height, out_width)


def as_pair(value: object, axes: int) -> tuple[int, int]:
    """One number for each of two axes; 1 for the missing one of a line."""
    first, second = (*(1,) * (2 - axes), *each(value, axes))
    return first, second


def each(value: object, axes: int) -> tuple[int, ...]:
    """One number an axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * axes if len(values) == 1 else values


def interpolate(call: Call) -> Value:
    """F.interpolate in all modes of one and two axes."""
    names = "input size scale_factor mode align_corners recompute_scale_factor antialias"
    given = call.bound(names, size=None, scale_factor=None, mode="nearest", align_corners=None)
    x = call.value(given["input"])
    as_image(call, x, len(x.shape) - 2)
    if given["mode"].startswith("nearest"):
        keywords: dict[str, Any] = {
            key: given[key]
            for key in ("size", "scale_factor", "mode", "recompute_scale_factor")
            if key in given
        }
        (y,) = moved(call, torch.nn.functional.interpolate, [x], keywords)
        return y
    return _tapped(call, call.dense(x), interpolation_taps(x.shape[2:], call.shape[2:], given))


def _tapped(call: Call, x: Value, lines: list[Taps]) -> Value:
    for axis, (places, weights) in reversed(list(zip(range(-len(lines), 0), lines))):
        outer, size, inner = x.around(axis)
        shape = list(x.shape)
        shape[axis] = len(places)
        numbers = {"outer": outer, "size": size, "inner": inner, "out": len(places), "each": places.shape[1]}
        tables = {"from": places.int(), "weight": weights}
        x = call.add("taps", [x], tuple(shape), tables=tables, numbers=numbers)
    return x


def batch_norm(call: Call) -> Value:
    """In evaluation mode: one product and one sum a channel."""
    names = "input running_mean running_var weight bias training momentum eps"
    given = call.bound(names, weight=None, bias=None, training=False, eps=1e-5)
    if given["training"] or given.get("running_mean") is None:
        raise call.refuse(
            "a BatchNorm without running statistics needs a batch; give it track_running_stats=True"
        )
    mean, var, weight, bias = (given[key] for key in ("running_mean", "running_var", "weight", "bias"))
    return affine(call, call.dense(given["input"]), *norm_affine(mean, var, weight, bias, given["eps"]))
