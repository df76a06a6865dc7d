"""Layers with weights as steps in C: packed layers, and those that stay float."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarize.exporters.c.steps import Image, Step, Storage, Value, refuse
from binarize.kernels.bits import WORD, pack_words
from binarize.kernels.geometry import Geometry
from binarize.packed.layers import PackedLayer

__all__ = ["float_conv", "float_linear", "packed_layer", "rows_of_words"]


def float_conv(x: Value, conv: Any, name: str) -> Step:
    """nn.Conv1d and nn.Conv2d."""
    if conv.padding_mode != "zeros":
        raise refuse(name, f'padding_mode "{conv.padding_mode}" has no C code; expected "zeros"')
    left, right, top, bottom = [*conv._reversed_padding_repeated_twice, 0, 0][:4]
    line = (1,) * (2 - len(conv.kernel_size))
    kernel, stride, dilation = ((*line, *sizes) for sizes in (conv.kernel_size, conv.stride, conv.dilation))
    padding = (top, bottom, left, right)
    geometry = Geometry(conv.in_channels, conv.out_channels, kernel, stride, padding, dilation, conv.groups)
    return _conv(x, geometry, conv, name)


def float_linear(x: Value, linear: nn.Linear, name: str) -> Step:
    """nn.Linear on (1, features)."""
    _require_row(x, linear.in_features, name)
    return _conv(x, Geometry(linear.in_features, linear.out_features), linear, name)


def _conv(x: Value, geometry: Geometry, layer: Any, name: str) -> Step:
    weight, bias = _float32(layer.weight, name), layer.bias
    height, width = _size(x)
    image = Image.of(geometry, height, width)
    y = Value.floats(_result_shape(x, image))
    tables = {"weight": weight, "bias": None if bias is None else _float32(bias, name)}
    return Step("conv", [x], y, name, image, tables)


def packed_layer(x: Value, layer: PackedLayer, name: str) -> Step:
    """The product of a packed layer, on floats: its input's signs are taken by a step of their own later."""
    window = layer.window
    if not window.native:
        raise refuse(name, f"a {window.kind} of {len(window.kernel)} axes has no C code")
    if window.padding_mode not in ("zeros", "same"):
        raise refuse(name, f'padding_mode "{window.padding_mode}" has no C code; expected "zeros"')
    if layer.zero_one and layer.border is not None:
        raise refuse(name, "it pads inputs of 0 and 1 with a third value")
    if window.kind == "linear":
        _require_row(x, window.in_channels, name)
    elif len(x.shape) != len(window.kernel) + 1:
        raise refuse(name, f"it reads {(1, *x.shape)}; expected {len(window.kernel) + 2} axes")
    pad = 0 if layer.float_input else int(layer.pad_value)
    blank = torch.empty(1, *x.shape, device="meta")
    geometry = window.geometry(blank, pad)
    image = Image.of(geometry, *_size(x))
    y = Value.floats(_result_shape(x, image))
    tables: dict[str, Tensor | None] = {
        "scale": layer.scale,
        "shift": layer.shift,
        "window_scale": layer.window_scale,
        "lower": layer.lower.reshape(geometry.weight_shape),
    }
    if layer.float_input:
        numbers = {"pad": float(layer.pad_value)}
        return Step("conv_signs", [x], y, name, image, tables, numbers)
    tables["threshold"] = layer.threshold
    numbers = {"outside": pad, "zero_one": layer.zero_one, "border": layer.outside}
    return Step("binary", [x], y, name, image, tables, numbers)


def rows_of_words(lower: Tensor) -> Tensor:
    """Words of each filter's bits, in the order of its axes. Shapes: bool (O, ...) -> int32 (O, words)."""
    return pack_words(lower.flatten(1))


def scratch_for(image: Image) -> list[Storage]:
    """The stream of bits under the window, and its mask."""
    words = -(-image.geometry.filter_size // WORD)
    return [Storage("bits", words), Storage("bits", words)]


def _size(x: Value) -> tuple[int, int]:
    spatial = (1, 1, *x.shape[1:])[-2:]
    return spatial[0], spatial[1]


def _result_shape(x: Value, image: Image) -> tuple[int, ...]:
    spatial = (image.out_height, image.out_width)[3 - len(x.shape) :] if len(x.shape) > 1 else ()
    return (image.geometry.out_channels, *spatial)


def _require_row(x: Value, features: int, name: str) -> None:
    if x.shape != (features,):
        raise refuse(name, f"a linear layer on {(1, *x.shape)}; expected (1, {features})")


def _float32(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype != torch.float32:
        raise refuse(name, f"its weights are {tensor.dtype}; expected float32")
    return tensor.detach().cpu()
