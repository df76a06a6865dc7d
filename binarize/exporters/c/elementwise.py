"""Functions of each number and its channel as steps in C: affine maps, slopes, limits, and those of `arithmetic`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from binarize.binarizers.nonlinearity import PiecewiseLinear
from binarize.exporters.c.arithmetic import FUNCTIONS, UNARY
from binarize.exporters.c.call import Call, along
from binarize.exporters.c.steps import Elementwise, Value, per_channel

__all__ = ["affine", "bent", "clamp", "combined", "mapped", "prelu"]


def bent(call: Call, form: PiecewiseLinear) -> Value:
    """A nonlinearity that is straight lines; the value itself where it does nothing."""
    x = call.dense(call.args[0])
    axis = form.channel_dim if form.channels > 1 else 1
    if form.channels > 1 and form.channels != x.around(axis)[1]:
        raise call.refuse(f"{form.channels} slopes for {x.around(axis)[1]} channels")
    if form.is_relu:
        return clamp(call, x, 0, math.inf)
    if form.positive is None and form.negative is not None:
        before = None if form.pre is None else -form.pre
        x = prelu(call, x, form.negative, before, form.post, axis)
    else:
        if form.pre is not None:
            x = affine(call, x, None, form.pre, axis)
        if form.positive is not None:
            x = _maxout(call, x, form, axis)
        if form.post is not None:
            x = affine(call, x, None, form.post, axis)
    if form.limited:
        low = -math.inf if form.low is None else form.low
        x = clamp(call, x, low, math.inf if form.high is None else form.high)
    return x


def affine(call: Call, x: Value, factor: Tensor | None, offset: Tensor | None, axis: int = 1) -> Value:
    """x * factor + offset, each one number or one a channel of the axis."""

    def compute(v: Tensor) -> Tensor:
        v = v if factor is None else v * per_channel(factor, v)
        return v if offset is None else v + per_channel(offset, v)

    rising = factor is None or bool((factor >= 0).all())
    return _by_channel(
        call, "affine", x, {"factor": factor, "offset": offset}, Elementwise(compute, rising), axis
    )


def prelu(
    call: Call, x: Value, slope: Tensor, before: Tensor | None, after: Tensor | None, axis: int = 1
) -> Value:
    """z where z > 0, else slope z, with z = x - before; then + after. One slope or one a channel."""

    def compute(v: Tensor) -> Tensor:
        z = v if before is None else v - per_channel(before, v)
        bent = torch.where(z > 0, z, per_channel(slope, z) * z)
        return bent if after is None else bent + per_channel(after, bent)

    channels = x.around(axis)[1]
    tables = {"before": _each(before, channels), "slope": slope, "after": _each(after, channels)}
    return _by_channel(call, "prelu", x, tables, Elementwise(compute, bool((slope >= 0).all())), axis)


def _maxout(call: Call, x: Value, form: PiecewiseLinear, axis: int) -> Value:
    """positive x where x > 0, else negative x."""
    channels = x.around(axis)[1]
    pos, neg = (_each(table, channels) for table in (form.positive, form.negative))
    assert pos is not None
    slopes = pos, torch.ones_like(pos) if neg is None else neg

    def compute(v: Tensor) -> Tensor:
        upper, lower = (per_channel(slope, v) for slope in slopes)
        return v.clamp_min(0) * upper + v.clamp_max(0) * lower

    rising = all(bool((slope >= 0).all()) for slope in slopes)
    return _by_channel(
        call, "maxout", x, dict(zip(("pos", "neg"), slopes)), Elementwise(compute, rising), axis
    )


def clamp(call: Call, x: Value, low: object, high: object) -> Value:
    """x between two limits, either of them perhaps infinite or a tensor."""
    for name, limit in (("larger", low), ("smaller", high)):
        if isinstance(limit, (Value, Tensor)):
            x = combined(call, name, x, limit)
    low, high = (
        float(limit) if isinstance(limit, (int, float)) else end
        for limit, end in ((low, -math.inf), (high, math.inf))
    )
    if (low, high) == (-math.inf, math.inf):
        return x
    x = call.dense(x)
    relu = low == 0 and high == math.inf
    made = Elementwise(lambda v: v.clamp(low, high), rising=True)
    numbers = {} if relu else {"low": low, "high": high}
    return call.add("relu" if relu else "clamp", [x], x.shape, numbers=numbers, elementwise=made)


def mapped(call: Call, function: str, x: object, *numbers: float) -> Value:
    """A function of `arithmetic` of each number; `numbers` are fixed."""
    known, value = UNARY[function], call.dense(x)
    fixed = [float(n) for n in numbers]
    made = Elementwise(lambda v: known.torch(v, *fixed), known.rising)
    given = dict(zip(known.numbers, fixed))
    return call.add(function, [value], value.shape, numbers=given, elementwise=made)


def combined(call: Call, function: str, *operands: object) -> Value:
    """A function of `arithmetic` of several tensors or numbers, spread to one shape."""
    values = [call.value(x) for x in operands]
    shape = tuple(torch.broadcast_shapes(*(value.shape for value in values)))
    known = _with_constant(call, function, values, shape)
    if known is not None:
        return known
    if all(value.shape == shape and value.strides is None for value in values):
        return call.add(function, values, shape)
    spread = [value.spread_to(shape) for value in values]
    try:
        table = along(shape, *(value.steps for value in spread), tuple(1 for _ in shape))[: 1 + len(values)]
    except ValueError:
        spread = [call.dense(value) for value in spread]
        return call.add(function, spread, shape)
    return call.add(f"{function}_spread", spread, shape, tables={"along": table})


def _with_constant(call: Call, function: str, values: list[Value], shape: tuple[int, ...]) -> Value | None:
    """A tensor that meets one number, or one a channel: a function of each number, which thresholds may take in."""
    held = [i for i, value in enumerate(values) if value.storage.pool == "constant"]
    if len(values) != 2 or len(held) != 1:
        return None
    x, constant = values[1 - held[0]], values[held[0]]
    table, first = constant.storage.table, held[0] == 0
    axis = _channel_axis(constant, shape)
    if x.shape != shape or axis is None or table is None or not constant.whole:
        return None
    x = call.dense(x)
    if function in ("add", "multiply") or (function == "subtract" and not first):
        table = table.flatten()
        factor, offset = (
            (table, None) if function == "multiply" else (None, -table if function == "subtract" else table)
        )
        return affine(call, x, factor, offset, axis)
    known = FUNCTIONS[function]

    def compute(v: Tensor) -> Tensor:
        row = per_channel(table, v)
        return known.torch(row, v) if first else known.torch(v, row)

    second = axis == 1 and shape[:1] == (1,)
    made = Elementwise(compute, channels_second=second or constant.size == 1)
    order = [constant, x] if first else [x, constant]
    spread = [value.spread_to(shape) for value in order]
    table_along = along(shape, *(value.steps for value in spread), tuple(1 for _ in shape))[:3]
    return call.add(f"{function}_spread", spread, shape, tables={"along": table_along}, elementwise=made)


def _channel_axis(constant: Value, shape: tuple[int, ...]) -> int | None:
    """The axis along which a constant differs; 1 where it is one number; None where it differs along several."""
    there = [len(shape) - len(constant.shape) + axis for axis, n in enumerate(constant.shape) if n > 1]
    if not there:
        return 1
    return there[0] if len(there) == 1 else None


def _each(table: Tensor | None, channels: int) -> Tensor | None:
    """One number a channel."""
    return table if table is None or table.numel() == channels else table.expand(channels)


def _by_channel(
    call: Call, function: str, x: Value, tables: dict[str, Tensor | None], made: Elementwise, axis: int
) -> Value:
    kept = {key: None if table is None else table.detach().cpu() for key, table in tables.items()}
    outer, channels, inner = x.around(axis) if len(x.shape) > 1 else (1, x.size, 1)
    for table in kept.values():
        if table is not None and table.dtype != torch.float32:
            raise call.refuse(f"its numbers are {table.dtype}; expected float32")
        if table is not None and table.numel() not in (1, channels):
            raise call.refuse(f"{table.numel()} numbers for {channels} channels")
    alike = all(table is None or table.numel() == 1 for table in kept.values())
    second = alike or (outer == 1 and axis % max(len(x.shape), 1) == 1)
    made = replace(made, channels_second=second)
    numbers = {"outer": outer, "channels": channels, "inner": inner}
    return call.add(function, [x], x.shape, tables=kept, numbers=numbers, elementwise=made)
