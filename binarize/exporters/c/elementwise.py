"""Functions of each number and its channel, as steps in C: affine maps, slopes, limits, and nonlinearities made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from binarize.binarizers.nonlinearity import PiecewiseLinear
from binarize.exporters.c.steps import Elementwise, Step, Value, per_channel, refuse

__all__ = ["affine", "bent", "clamp", "prelu", "require_channels_first"]


def bent(x: Value, form: PiecewiseLinear, name: str) -> list[Step]:
    """The steps of a nonlinearity that is straight lines; none where it does nothing."""
    if form.channels > 1:
        require_channels_first(x, form, name)
        if form.channels != x.channels:
            raise refuse(name, f"{form.channels} slopes for {x.channels} channels")
    if form.is_relu:
        return [clamp(x, 0, math.inf, name)]
    steps: list[Step] = []

    def last() -> Value:
        return steps[-1].writes if steps else x

    if form.positive is None and form.negative is not None:
        before = None if form.pre is None else -form.pre
        steps.append(prelu(x, form.negative, before, form.post, name))
    else:
        if form.pre is not None:
            steps.append(affine(last(), None, form.pre, name))
        if form.positive is not None:
            steps.append(_maxout(last(), form, name))
        if form.post is not None:
            steps.append(affine(last(), None, form.post, name))
    if form.limited:
        low = -math.inf if form.low is None else form.low
        steps.append(clamp(last(), low, math.inf if form.high is None else form.high, name))
    return steps


def affine(x: Value, factor: Tensor | None, offset: Tensor | None, name: str) -> Step:
    """x * factor + offset, each one number or one a channel."""

    def compute(v: Tensor) -> Tensor:
        v = v if factor is None else v * per_channel(factor, v)
        return v if offset is None else v + per_channel(offset, v)

    for table in (factor, offset):
        if table is not None and table.numel() not in (1, x.channels):
            raise refuse(name, f"{table.numel()} numbers for {x.channels} channels")
    rising = factor is None or bool((factor >= 0).all())
    tables = {"factor": factor, "offset": offset}
    return _elementwise("affine", x, tables, compute, rising, name)


def prelu(x: Value, slope: Tensor, before: Tensor | None, after: Tensor | None, name: str) -> Step:
    """z where z > 0, else slope z, with z = x - before; then + after. One slope or one a channel."""
    if slope.numel() not in (1, x.channels):
        raise refuse(name, f"{slope.numel()} slopes for {x.channels} channels")

    def compute(v: Tensor) -> Tensor:
        z = v if before is None else v - per_channel(before, v)
        bent = torch.where(z > 0, z, per_channel(slope, z) * z)
        return bent if after is None else bent + per_channel(after, bent)

    tables = {"before": _each(before, x), "slope": slope, "after": _each(after, x)}
    return _elementwise("prelu", x, tables, compute, bool((slope >= 0).all()), name)


def _maxout(x: Value, form: PiecewiseLinear, name: str) -> Step:
    """positive x where x > 0, else negative x."""
    pos, neg = (_each(table, x) for table in (form.positive, form.negative))
    assert pos is not None
    slopes = pos, torch.ones_like(pos) if neg is None else neg

    def compute(v: Tensor) -> Tensor:
        upper, lower = (per_channel(slope, v) for slope in slopes)
        return v.clamp_min(0) * upper + v.clamp_max(0) * lower

    rising = all(bool((slope >= 0).all()) for slope in slopes)
    return _elementwise("maxout", x, dict(zip(("pos", "neg"), slopes)), compute, rising, name)


def clamp(x: Value, low: float, high: float, name: str) -> Step:
    """x between two limits, either of them perhaps infinite."""
    if not isinstance(x, Value) or not all(isinstance(n, (int, float)) for n in (low, high)):
        raise refuse(name, "limits that are tensors have no C code")
    if low == 0 and high == math.inf:
        step = Step("relu", [x], Value.floats(x.shape), name)
    else:
        numbers = {"low": float(low), "high": float(high)}
        step = Step("clamp", [x], Value.floats(x.shape), name, numbers=numbers)
    step.elementwise = Elementwise(lambda v: v.clamp(low, high), rising=True)
    return step


def require_channels_first(x: Value, layer: Any, name: str) -> None:
    """Raises: UsageError, where the channels of `layer` are not the first axis behind the batch."""
    if layer.channel_dim not in (1, len(x.shape)) and layer.channel_dim != -len(x.shape):
        raise refuse(
            name, f"its channels are axis {layer.channel_dim} of {(1, *x.shape)}; expected the second"
        )
    if len(x.shape) > 1 and layer.channel_dim in (-1, len(x.shape)):
        raise refuse(name, f"its channels are the last axis of {(1, *x.shape)}; expected the second")


def _each(table: Tensor | None, x: Value) -> Tensor | None:
    """One number a channel."""
    return table if table is None or table.numel() == x.channels else table.expand(x.channels)


def _elementwise(
    function: str,
    x: Value,
    tables: dict[str, Tensor | None],
    compute: Callable[[Tensor], Tensor],
    rising: bool,
    name: str,
) -> Step:
    kept = {key: None if table is None else table.detach().cpu() for key, table in tables.items()}
    for table in kept.values():
        if table is not None and table.dtype != torch.float32:
            raise refuse(name, f"its numbers are {table.dtype}; expected float32")
    y = Value.floats(x.shape)
    return Step(function, [x], y, name, tables=kept, elementwise=Elementwise(compute, rising))
