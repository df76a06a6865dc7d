"""Sums, means, extremes, norms and matrix products as steps in C: what joins many numbers in the order of their places."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from binarize.exporters.c.call import Call
from binarize.exporters.c.pools import Axes
from binarize.exporters.c.steps import Value
from binarize.exporters.c.views import moved

__all__ = ["along_one", "extreme", "linear", "matmul", "reduced", "standardized"]


def reduced(function: str) -> Callable[[Call], Value]:
    """Over some axes: `sum`, `mean`, `largest`, `smallest` and the places of the last two."""

    def over(call: Call) -> Value:
        given = call.bound("input dim keepdim dtype", dim=None, keepdim=False, dtype=None)
        return _over(call, function, call.value(given["input"]), given["dim"])

    return over


def _over(call: Call, function: str, x: Value, dim: Axes) -> Value:
    rank = len(x.shape)
    axes = _axes(dim, rank)
    first, end = (axes[0], axes[-1] + 1) if axes else (rank, rank)
    if axes != list(range(first, end)):
        # Behind the others, in their order.
        others = [axis for axis in range(rank) if axis not in axes]
        (x,) = moved(call, torch.permute, [x, (*others, *axes)], {})
        first, end = len(others), rank
    x = call.dense(x)
    numbers: dict[str, float] = {
        "outer": math.prod(x.shape[:first]),
        "count": math.prod(x.shape[first:end]),
        "inner": math.prod(x.shape[end:]),
    }
    return call.add(function, [x], call.shape, numbers=numbers)


def _axes(dim: Axes, rank: int) -> list[int]:
    if dim is None or dim == ():
        return list(range(rank))
    return sorted(axis % max(rank, 1) for axis in (dim if isinstance(dim, (tuple, list)) else (dim,)))


def extreme(function: str) -> Callable[[Call], Value | list[Value]]:
    """torch.max and torch.min: of two tensors, of all numbers, or along an axis with their places."""

    def over(call: Call) -> Value | list[Value]:
        given = call.bound("input dim keepdim", dim=None, keepdim=False)
        x = call.value(given["input"])
        if given["dim"] is None:
            return _over(call, function, x, None)
        shape = list(x.shape)
        shape[given["dim"]] = 1
        if not given["keepdim"]:
            del shape[given["dim"]]
        call.shape = tuple(shape)
        return [_over(call, name, x, given["dim"]) for name in (function, f"place_{function}")]

    return over


def along_one(function: str) -> Callable[[Call], Value]:
    """What leaves the shape as it is and runs along one axis: softmax, log_softmax, cumsum."""

    def over(call: Call) -> Value:
        given = call.bound("input dim _stacklevel dtype", dim=None)
        x = call.dense(given["input"])
        if given["dim"] is None:
            raise call.refuse(f"{call.op} without dim has no C code; name the axis")
        outer, count, inner = x.around(given["dim"])
        return call.add(function, [x], x.shape, numbers={"outer": outer, "count": count, "inner": inner})

    return over


def standardized(call: Call) -> Value:
    """Rows less their mean, over their deviation."""
    given = call.bound("x eps")
    x = call.dense(given["x"])
    rows, count = x.shape
    return call.add("standardize", [x], x.shape, numbers={"rows": rows, "count": count, "eps": given["eps"]})


def linear(call: Call) -> Value:
    """F.linear on (..., features), of a weight that the model holds or computes."""
    given = call.bound("input weight bias", bias=None)
    weight, bias = given["weight"], given["bias"]
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise call.refuse(
            "a linear layer whose weight is computed from the input has no C code; write it with matmul"
        )
    x = call.dense(given["input"])
    out, features = (1, *weight.shape)[-2:]
    numbers = {"rows": x.size // features, "features": features, "out": out}
    return call.add("linear", [x], call.shape, tables={"weight": weight, "bias": bias}, numbers=numbers)


def matmul(call: Call) -> Value:
    """torch.matmul by its rules: vectors, matrices, and stacks of these."""
    given = call.bound("input other")
    a, b = (call.value(given[name]) for name in ("input", "other"))
    if len(a.shape) == 1:
        (a,) = moved(call, torch.unsqueeze, [a, 0], {})
    if len(b.shape) == 1:
        (b,) = moved(call, torch.unsqueeze, [b, 1], {})
    stack = tuple(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    (rows, inner), columns, count = a.shape[-2:], b.shape[-1], math.prod(stack)
    sides = []
    for x in (a, b):
        whole = (*stack, *x.shape[-2:])
        alone = math.prod(x.shape[:-2]) == 1
        sides.append(call.dense(x if alone or x.shape == whole else x.spread_to(whole)))
    numbers: dict[str, float] = {
        "count": count, "rows": rows, "inner": inner, "columns": columns,
        "a_step": rows * inner if math.prod(sides[0].shape[:-2]) > 1 else 0,
        "b_step": inner * columns if math.prod(sides[1].shape[:-2]) > 1 else 0,
    }  # fmt: skip
    return call.add("matmul", sides, call.shape, numbers=numbers)
