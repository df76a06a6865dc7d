"""Operations that only move numbers: views, padding, joining. Torch itself says which number goes where.

The operation is asked about a tensor that holds the place of each number in memory. Where the places of the result lie in
even steps, it is a view and nothing is done; else the numbers are copied, by steps along four axes, by a table for each of
three axes, or by one for every number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.exporters.c.call import Call, along
from binarize.exporters.c.steps import Value, dense_strides

__all__ = ["cat", "mirrored", "moved", "padded", "put", "rewritten", "stack"]


def moved(
    call: Call, operation: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]
) -> list[Value]:
    """Each tensor that the operation yields of its first argument."""
    x, *rest = args
    places = _places(x)
    found = operation(places, *rest, **keywords)
    views = [found] if isinstance(found, Tensor) else list(found)
    return [_taken(call, x, view) for view in views]


def _places(x: Value) -> Tensor:
    """Where each number of a value lies in its storage, counted from 1: 0 is no place."""
    places = torch.full([1] * len(x.shape), x.start + 1, dtype=torch.float64)
    for axis, (n, step) in enumerate(zip(x.shape, x.steps)):
        line = torch.arange(n, dtype=torch.float64) * step
        places = places + line.reshape([-1 if other == axis else 1 for other in range(len(x.shape))])
    return places


def _taken(call: Call, x: Value, places: Tensor) -> Value:
    shape = tuple(places.shape)
    places = places.to(torch.int64) - 1
    if not places.numel():
        raise call.refuse(f"{call.op} yields no numbers")
    if bool((places < 0).any()):
        return _with_zeros(call, x, places)
    start, lines = int(places.flatten()[0]), _lines(places)
    if lines is not None and all(_even(line) for line in lines):
        steps = tuple(int(line[1]) if len(line) > 1 else 0 for line in lines)
        dense = _same_order(shape, steps)
        return Value(shape, x.storage, start, None if dense else steps)
    parts = None if lines is None else _three(lines)
    if parts is None:
        zero = torch.zeros(1, dtype=torch.int64)
        parts = [zero, zero, places.flatten() - start]
    sizes = [len(line) for line in parts]
    parts = [parts[0] + start, *parts[1:]]
    from_here = torch.cat([torch.tensor(sizes), *parts]).int()
    return call.add("pick", [_whole(x)], shape, tables={"from": from_here})


def _with_zeros(call: Call, x: Value, places: Tensor) -> Value:
    """Where some of the result are zeros: a padded box, or anything."""
    inside = places >= 0
    box = tuple(
        (int(line.nonzero()[0]), int(line.nonzero()[-1]) + 1) if bool(line.any()) else (0, 0)
        for line in (inside.any(_others(axis, places.dim())) for axis in range(places.dim()))
    )
    part = places[tuple(slice(*ends) for ends in box)]
    shape = tuple(places.shape)
    if part.numel() and bool((part >= 0).all()):
        taken = _taken(call, x, (part + 1).double())
        return _boxed(call, taken, shape, [first for first, _ in box], 0.0)
    return call.add("pick_or_zero", [_whole(x)], shape, tables={"from": places.flatten().int()})


def _others(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(other for other in range(rank) if other != axis)


def _boxed(call: Call, x: Value, shape: tuple[int, ...], first: Sequence[int], fill: float) -> Value:
    """x with a margin of one number around it."""
    steps = dense_strides(shape)
    begin = sum(n * step for n, step in zip(first, steps))
    numbers = {"start": 0, "begin": begin, "fill": float(fill)}
    return call.add("pad", [x], shape, tables={"along": _along(call, x, steps)}, numbers=numbers)


def _along(call: Call, x: Value, there: tuple[int, ...]) -> Tensor:
    try:
        return along(x.shape, x.steps, there)
    except ValueError as error:
        raise call.refuse(f"{call.op} moves numbers along {error}, which has no C code") from error


def _whole(x: Value) -> Value:
    """All of a value's storage: what tables of places count from."""
    return Value((x.storage.size,), x.storage)


def _lines(places: Tensor) -> list[Tensor] | None:
    """Steps of each axis from the first place, where every place is the sum of them."""
    first = places.flatten()[0]
    total, lines = first.reshape([1] * places.dim()), []
    for axis in range(places.dim()):
        line = places[tuple(slice(None) if other == axis else 0 for other in range(places.dim()))] - first
        lines.append(line)
        total = total + line.reshape([-1 if other == axis else 1 for other in range(places.dim())])
    return lines if torch.equal(total.expand(places.shape), places) else None


def _even(line: Tensor) -> bool:
    return len(line) < 3 or bool((line.diff() == line[1]).all())


def _same_order(shape: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    return all(n == 1 or step == dense for n, step, dense in zip(shape, steps, dense_strides(shape)))


def _three(lines: list[Tensor]) -> list[Tensor] | None:
    """The same steps along three axes; None where there are more."""
    merged: list[Tensor] = []
    for line in (line for line in lines if len(line) > 1):
        if merged and _even(merged[-1]) and _even(line) and int(merged[-1][1]) == int(line[1]) * len(line):
            merged[-1] = (merged[-1][:, None] + line).flatten()
        else:
            merged.append(line)
    missing = 3 - len(merged)
    return [torch.zeros(1, dtype=torch.int64)] * missing + merged if missing >= 0 else None


def padded(call: Call) -> Value:
    """F.pad in all its modes."""
    given = call.bound("input pad mode value", mode="constant", value=None)
    x, sides = call.value(given["input"]), [int(n) for n in given["pad"]]
    if given["mode"] != "constant":
        return mirrored(call, x, sides, given["mode"])
    cut = [min(n, 0) for n in sides]
    if any(cut):
        (x,) = moved(call, F.pad, [x, cut], {})
    more = [max(n, 0) for n in sides]
    if not any(more):
        return x
    before = [0] * (len(x.shape) - len(more) // 2) + more[-2::-2]
    return _boxed(call, x, call.shape, before, float(given["value"] or 0))


def mirrored(call: Call, x: Value, sides: Sequence[int], mode: str) -> Value:
    """x with copies of its own numbers around it."""
    (y,) = moved(call, F.pad, [x, list(sides)], {"mode": mode})
    return call.dense(y)


def cat(call: Call) -> Value:
    """Tensors one behind the other along an axis."""
    given = call.bound("tensors dim", dim=0)
    return _joined(call, [call.value(x) for x in given["tensors"]], given["dim"] % len(call.shape))


def stack(call: Call) -> Value:
    """Tensors beside each other along a new axis."""
    given = call.bound("tensors dim", dim=0)
    axis = given["dim"] % len(call.shape)
    parts = []
    for x in given["tensors"]:
        parts += moved(call, torch.unsqueeze, [call.value(x), axis], {})
    return _joined(call, parts, axis)


def _joined(call: Call, parts: list[Value], axis: int) -> Value:
    parts = [x for x in parts if x.size]
    steps = dense_strides(call.shape)
    tables = {str(i): _along(call, x, steps) for i, x in enumerate(parts)}
    at = 0
    numbers: dict[str, float] = {}
    for i, x in enumerate(parts):
        numbers[str(i)] = at * steps[axis]
        at += x.shape[axis]
    return call.add("cat", parts, call.shape, tables=tables, numbers=numbers)


def put(call: Call, base: Value, index: Any, given: object) -> Value:
    """base with other numbers where an index points: `base[index] = given`."""
    numbers = torch.arange(base.size, dtype=torch.int64).view(base.shape)
    there = numbers[index]
    value = call.value(given)
    lines = _lines(there) if there.numel() else None
    if lines is None or not all(_even(line) for line in lines):
        raise call.refuse("it writes into places of a tensor that lie in no even steps, which has no C code")
    seen = value.spread_to(tuple(there.shape))
    return _put(call, base, seen, int(there.flatten()[0]), lines)


Memory = tuple[tuple[int, ...], int, tuple[int, ...]]


def rewritten(call: Call, x: Value, new: Value, seen: Memory, by: Memory) -> Value:
    """x with the numbers of `new` where both see the same memory: shape, offset and strides of the two in it."""
    here, there = (
        _places(Value(shape, x.storage, start, strides)).long() - 1 for shape, start, strides in (seen, by)
    )
    index = torch.full((1 + int(max(here.max(), there.max())),), -1)
    index[there.flatten()] = torch.arange(there.numel())
    source = index[here]
    if bool((source < 0).all()):
        return x
    if bool((source >= 0).all()):
        places = _places(new).flatten()[source]
        return _taken(call, new, places)
    index[:] = -1
    index[here.flatten()] = torch.arange(here.numel())
    target = index[there]
    lines = _lines(target)
    if bool((target < 0).any()) or lines is None or not all(_even(line) for line in lines):
        raise call.refuse(
            "it writes in place into memory that other tensors see in part, which has no C code"
        )
    return _put(call, x, new, int(target.flatten()[0]), lines)


def _put(call: Call, base: Value, given: Value, begin: int, lines: list[Tensor]) -> Value:
    into = tuple(int(line[1]) if len(line) > 1 else 0 for line in lines)
    dense = call.dense(base)
    tables = {"along": _along(call, given, into)}
    return call.add("put", [dense, given], dense.shape, tables=tables, numbers={"begin": begin})
