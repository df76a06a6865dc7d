"""The calls of layers with a window: signs packed, binary and float products, pools. One function for each C function."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from binarize.exporters.c.layers import rows_of_words
from binarize.exporters.c.steps import Step, Value
from binarize.exporters.c.tables import Tables, exact
from binarize.exporters.c.words import at, said
from binarize.kernels.bits import WORD

__all__ = ["binary", "conv", "conv_signs", "pack", "pool"]


def _window(step: Step) -> str:
    image = step.image
    assert image is not None
    g = image.geometry
    top, left = image.corner
    return (
        f"{{\n    .channels = {g.in_channels}, .height = {image.height}, .width = {image.width},\n"
        f"    .out_channels = {g.out_channels}, .out_height = {image.out_height}, .out_width = {image.out_width},\n"
        f"    .kernel_height = {g.kernel[0]}, .kernel_width = {g.kernel[1]}, "
        f".stride_y = {g.stride[0]}, .stride_x = {g.stride[1]},\n"
        f"    .dilation_y = {g.dilation[0]}, .dilation_x = {g.dilation[1]}, "
        f".top = {top}, .left = {left}, .spread_y = {image.spread[0]}, .spread_x = {image.spread[1]}, "
        f".groups = {g.groups}\n}}"
    )


_WINDOW_BYTES, _BINARY_BYTES = 4 * 17, 4 * (17 + 5 + 7)


def _window_of(step: Step, tables: Tables) -> str:
    return tables.struct("Window", "window", step, _window(step), _WINDOW_BYTES)


def pack(step: Step, tables: Tables) -> list[str]:
    (x,), table = step.reads, step.tables["threshold"]
    channels, pixels, rows = (int(step.numbers[key]) for key in ("channels", "pixels", "rows"))
    steps = f"1, {channels}" if rows else f"{pixels}, 1"
    image = pixels * -(-channels // WORD)
    calls = []
    for k, row in enumerate([None] if table is None else table):
        same = row is not None and bool((row == row[0]).all())
        if row is None or (same and float(row[0]) == 0):
            limits, each = "0", 0
        else:
            limits, each = tables.numbers("threshold", step, row[:1] if same else row), int(not same)
        bits = Value(step.writes.shape, step.writes.storage, k * image)
        given = f"{at(x, tables, step)}, {channels}, {pixels}, {steps}, {limits}, {each}, {at(bits)}"
        calls.append(f"pack({given}); /* {said(step)} */")
    return calls


def binary(step: Step, tables: Tables) -> list[str]:
    lower, image = step.tables["lower"], step.image
    assert lower is not None and image is not None
    fused, rows = step.function == "binary_bits", int(step.numbers.get("rows", 0))
    apart = (1, image.geometry.out_channels) if rows else (image.out_height * image.out_width, 1)
    names = {
        "weight": tables.numbers("weight_bits", step, rows_of_words(lower.permute(0, 2, 3, 1))),
        "limit": tables.numbers("limit", step, step.tables["limit"]) if fused else "0",
        "flip": tables.numbers("flip", step, _flags(step.tables["flip"])) if fused else "0",
    }
    planes = 1
    for key in ("scale", "shift", "window_scale"):
        names[key] = "0" if fused else tables.numbers(key, step, step.tables[key])
    names["border"] = "0.0f" if fused else exact(np.float32(step.numbers["border"]))
    if not fused and step.tables["scale"] is not None:
        planes = len(step.tables["scale"])
    body = (
        f"{{\n    .window = {_indented(_window(step))},\n"
        f"    .outside = {int(step.numbers['outside'])}, .zero_one = {int(step.numbers['zero_one'])}, "
        f".planes = {planes},\n    .filter_step = {apart[0]}, .pixel_step = {apart[1]},\n    "
        + ",\n    ".join(f".{key} = {value}" for key, value in names.items())
        + "\n}"
    )
    layer = tables.struct("Binary", "layer", step, body, _BINARY_BYTES)
    seen, mask = (at(Value((s.size,), s)) for s in step.scratch)
    (x,) = step.reads
    return [f"{step.function}({layer}, {at(x)}, {seen}, {mask}, {at(step.writes)}); /* {said(step)} */"]


def _flags(flip: Tensor | None) -> Tensor | None:
    return None if flip is None else rows_of_words(flip[None])


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def conv(step: Step, tables: Tables) -> list[str]:
    x = at(step.reads[0], tables, step)
    weight = tables.numbers("weight", step, step.tables["weight"])
    bias = tables.numbers("bias", step, step.tables["bias"])
    window = _window_of(step, tables)
    return [f"conv({window}, {x}, {weight}, {bias}, {at(step.writes)}); /* {said(step)} */"]


def conv_signs(step: Step, tables: Tables) -> list[str]:
    (x,), lower = step.reads, step.tables["lower"]
    assert lower is not None
    weight = tables.numbers("weight_bits", step, rows_of_words(lower))
    scale, window_scale, shift = (
        tables.numbers(key, step, step.tables[key]) for key in ("scale", "window_scale", "shift")
    )
    pad = exact(np.float32(step.numbers["pad"]))
    window = _window_of(step, tables)
    given = f"{window}, {pad}, {at(x, tables, step)}, {weight}, {scale}, {window_scale}, {shift}, {at(step.writes)}"
    return [f"conv_signs({given}); /* {said(step)} */"]


def pool(step: Step, tables: Tables) -> list[str]:
    divisor = f"{int(step.numbers['divisor'])}, " if "divisor" in step.numbers else ""
    given = f"{_window_of(step, tables)}, {divisor}{at(step.reads[0], tables, step)}, {at(step.writes)}"
    return [f"{step.function}({given}); /* {said(step)} */"]
