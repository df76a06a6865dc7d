"""Packed layers as steps in C. What stays float is in `windows`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from binarize.exporters.c.call import Call
from binarize.exporters.c.steps import Image, Storage, Value
from binarize.exporters.c.views import mirrored
from binarize.kernels.bits import WORD, pack_words
from binarize.kernels.geometry import Geometry
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = ["as_image", "packed_layer", "rows_of_words", "scratch_for", "transposed"]


def packed_layer(call: Call, layer: PackedLayer) -> Value:
    """The product of a packed layer, on floats: its input's signs are taken by a step of their own later."""
    window = layer.window
    given = call.bound("x output_size", output_size=None)
    if len(window.kernel) > 2:
        raise call.refuse(
            f"a {window.kind} of {len(window.kernel)} axes has no C code; C takes 1-d and 2-d layers"
        )
    if layer.zero_one and layer.border is not None:
        raise call.refuse("it pads inputs of 0 and 1 with a third value")
    if window.kind == "linear":
        return _linear(call, call.dense(given["x"]), layer)
    x = call.dense(given["x"])
    if window.kind == "conv" and window.padding_mode not in ("zeros", "same"):
        x = mirrored(call, x, window.sides(torch.empty(x.shape, device="meta")), window.padding_mode)
    image = _image(call, x, layer, given["output_size"])
    lower = layer.lower
    if window.kind == "conv_transpose":
        lower = lower.flip(tuple(range(2, lower.dim())))
    return _product(call, x, layer, image, lower.reshape(image.geometry.weight_shape), {})


def _image(call: Call, x: Value, layer: PackedLayer, size: object) -> Image:
    window = layer.window
    height, width = as_image(call, x, len(window.kernel))
    if window.kind == "conv_transpose":
        return transposed(window, call.shape, (height, width))
    pad = 0 if layer.float_input else int(layer.pad_value)
    return Image.of(window.geometry(torch.empty(x.shape, device="meta"), pad), height, width)


def transposed(window: Window | SimpleNamespace, shape: tuple[int, ...], sizes: tuple[int, int]) -> Image:
    """A transposed convolution as one over a spread image, its kernel turned around; `window` says its numbers."""
    line = (1,) * (2 - len(window.kernel))
    kernel, stride, dilation = (
        (*line, *numbers) for numbers in (window.kernel, window.stride, window.dilation)
    )
    padding = (*(0 for _ in line), *window.padding)
    corner = tuple((k - 1) * d - p for k, d, p in zip(kernel, dilation, padding))
    geometry = Geometry(
        window.in_channels, window.out_channels, kernel, (1, 1), (0, 0, 0, 0), dilation, window.groups
    )
    out = (1, *shape[2:])[-2:]
    return Image(geometry, sizes[0], sizes[1], out[0], out[1], _pair(stride), _pair(corner))


def _pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    first, second = numbers
    return first, second


def _linear(call: Call, x: Value, layer: PackedLayer) -> Value:
    """On (..., features): each row is a pixel."""
    window = layer.window
    if not x.shape or x.shape[-1] != window.in_channels:
        raise call.refuse(f"it reads {x.shape}; expected {window.in_channels} features as its last axis")
    rows = x.size // window.in_channels
    geometry = Geometry(window.in_channels, window.out_channels)
    image = Image(geometry, 1, rows, 1, rows)
    lower = layer.lower.reshape(geometry.weight_shape)
    if rows == 1:
        return _product(call, x.seen_as((1, window.in_channels)), layer, image, lower, {}).seen_as(call.shape)
    if layer.float_input:
        turned = call.dense(
            Value((1, window.in_channels, rows), x.storage, x.start, (0, 1, window.in_channels))
        )
        y = _product(call, turned, layer, image, lower, {})
        back = Value((rows, window.out_channels), y.storage, 0, (1, rows))
        return call.dense(back).seen_as(call.shape)
    return _product(call, x.seen_as((rows, window.in_channels)), layer, image, lower, {"rows": rows})


def _product(
    call: Call, x: Value, layer: PackedLayer, image: Image, lower: Tensor, numbers: dict[str, float]
) -> Value:
    g, rows = image.geometry, numbers.get("rows")
    # Rows of features lie one behind the other; an image of them has each feature's pixels together.
    shape = call.shape if rows or layer.window.kind != "linear" else (1, g.out_channels, image.out_width)
    tables: dict[str, Tensor | None] = {
        "scale": layer.scale,
        "shift": layer.shift,
        "window_scale": layer.window_scale,
        "lower": lower,
    }
    if layer.float_input:
        return call.add(
            "conv_signs", [x], shape, image=image, tables=tables, numbers={"pad": float(layer.pad_value)}
        )
    tables["threshold"] = layer.threshold
    pad = 0 if layer.window.kind != "conv" else int(layer.pad_value)
    numbers |= {"outside": pad, "zero_one": layer.zero_one, "border": layer.outside}
    return call.add("binary", [x], shape, image=image, tables=tables, numbers=numbers)


def as_image(call: Call, x: Value, axes: int) -> tuple[int, int]:
    """(height, width) of what a convolution or a pool over so many axes reads, which has a batch of 1 or none."""
    if axes > 2:
        raise call.refuse(f"{axes} spatial axes have no C code; C takes 1-d and 2-d layers")
    if len(x.shape) not in (axes + 1, axes + 2) or (len(x.shape) == axes + 2 and x.shape[0] != 1):
        raise call.refuse(f"it reads {x.shape}; expected a batch of 1, channels and {axes} axes")
    height, width = (1, *x.shape[-axes:])[-2:]
    return height, width


def rows_of_words(lower: Tensor) -> Tensor:
    """Words of each filter's bits, in the order of its axes. Shapes: bool (O, ...) -> int32 (O, words)."""
    return pack_words(lower.flatten(1))


def scratch_for(image: Image) -> list[Storage]:
    """The stream of bits under the window, and its mask."""
    words = -(-image.geometry.filter_size // WORD)
    return [Storage("bits", words), Storage("bits", words)]
