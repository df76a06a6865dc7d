"""Operations that only move numbers: slices, transposed axes, padding. Torch itself says which number goes where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from binarize.exporters.c.steps import Step, Value, refuse

__all__ = ["MOVES", "moved", "padded"]

# Operations that yield views of their first argument, or lists of views.
MOVES = frozenset(
    ("__getitem__", "chunk", "expand", "movedim", "narrow", "permute", "select", "split", "swapaxes", "t",
     "tensor_split", "transpose", "unbind")
)  # fmt: skip


def moved(
    x: Value, operation: Callable[..., Any], args: Sequence[Any], keywords: Any, name: str
) -> list[Step]:
    """One step for each tensor that the operation yields, found out by asking it about a tensor of x's shape."""
    blank = torch.empty(1, *x.shape)
    found = operation(blank, *args, **keywords)
    views = [found] if isinstance(found, Tensor) else list(found)
    return [_copied(x, blank, view, name) for view in views]


def _copied(x: Value, blank: Tensor, view: Tensor, name: str) -> Step:
    shared = view.untyped_storage().data_ptr() == blank.untyped_storage().data_ptr()
    if not shared or view.dim() == 0 or view.shape[0] != 1 or view.dim() > 5:
        raise refuse(name, f"it takes {tuple(view.shape)} out of {tuple(blank.shape)}, which has no C code")
    y = Value.floats(tuple(view.shape[1:]))
    along = _along(y.shape, view.stride()[1:], _strides(y.shape))
    numbers: dict[str, float] = {"start": int(view.storage_offset()), "begin": 0}
    return Step("place", [x], y, name, tables={"along": along}, numbers=numbers)


def padded(args: tuple[Any, ...], keywords: dict[str, Any], shape: Any, name: str) -> Step:
    """F.pad with a constant."""
    names = ("input", "pad", "mode", "value")
    given = {"mode": "constant", "value": None, **dict(zip(names, args)), **keywords}
    x, sides, value = given["input"], list(given["pad"]), given["value"]
    if given["mode"] != "constant" or min(sides) < 0 or len(sides) > 2 * len(x.shape):
        raise refuse(name, f"padding by {sides} ({given['mode']}) has no C code")
    y = Value.floats(tuple(shape[1:]))
    before = [0] * (len(x.shape) - len(sides) // 2) + sides[-2::-2]
    begin = sum(n * step for n, step in zip(before, _strides(y.shape)))
    along = _along(x.shape, _strides(x.shape), _strides(y.shape))
    numbers = {"start": 0, "begin": begin, "fill": float(value or 0)}
    return Step("pad", [x], y, name, tables={"along": along}, numbers=numbers)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def _along(sizes: tuple[int, ...], here: tuple[int, ...], there: tuple[int, ...]) -> Tensor:
    """What the C function reads: sizes, steps in x, steps in y, four of each."""
    missing = 4 - len(sizes)
    rows = [(1,) * missing + tuple(sizes), *[(0,) * missing + tuple(steps) for steps in (here, there)]]
    return torch.tensor(rows, dtype=torch.int32)
