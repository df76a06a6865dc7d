"""One recorded operation on its way to steps: its arguments by name, and what adds steps, copies views, or refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.exporters.c.steps import Step, Value, dense_strides

__all__ = ["Call", "along", "refuse"]


@dataclass
class Call:
    """One recorded operation that is turned into steps."""

    op: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    # Of the (first) tensor that it yields, with the batch axis.
    shape: tuple[int, ...]
    name: str
    steps: list[Step]

    def bound(self, names: str, **defaults: object) -> dict[str, Any]:
        """Arguments by name. Raises: UsageError, where one is given that has no name here."""
        known = names.split()
        given = {**dict(zip(known, self.args)), **self.keywords}
        unknown = [str(value) for value in self.args[len(known) :]] + sorted(given.keys() - set(known))
        if unknown:
            raise self.refuse(f"{self.op} with {', '.join(unknown)} has no C code")
        return {**defaults, **given}

    def add(self, function: str, reads: list[Value], shape: tuple[int, ...], **fields: Any) -> Value:
        """A step that writes a new value."""
        step = Step(function, reads, Value.floats(tuple(shape)), self.name, **fields)
        self.steps.append(step)
        return step.writes

    def value(self, given: object) -> Value:
        """A value, of a tensor that the model holds or a number too."""
        if isinstance(given, Value):
            return given
        if isinstance(given, (int, float, Tensor)):
            return Value.constant(torch.as_tensor(given))
        raise self.refuse(f"{self.op} of {type(given).__name__} has no C code")

    def dense(self, given: object) -> Value:
        """A value in one piece: a view of other order is copied."""
        value = self.value(given)
        if value.strides is None:
            return value
        from_here = {"start": 0, "begin": 0}
        return self.add(
            "place",
            [value],
            value.shape,
            numbers=from_here,
            tables={"along": along(value.shape, value.steps)},
        )

    def refuse(self, reason: str) -> UsageError:
        """What to raise where this operation has no C code."""
        return refuse(self.name, reason)


def along(shape: tuple[int, ...], *strides: tuple[int, ...]) -> Tensor:
    """What nested loops in C read: four sizes, then four steps of each operand; the last operand is what is written.

    With one operand alone, what is written is dense. Neighbouring axes that go on into each other are one.
    """
    each = [*strides] if len(strides) > 1 else [*strides, dense_strides(shape)]
    sizes: list[int] = []
    rows: list[list[int]] = [[] for _ in each]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        here = [steps[axis] for steps in each]
        if sizes and all(row[-1] == step * n for row, step in zip(rows, here)):
            sizes[-1] *= n
            for row, step in zip(rows, here):
                row[-1] = step
            continue
        sizes.append(n)
        for row, step in zip(rows, here):
            row.append(step)
    missing = _AXES - len(sizes)
    if missing < 0:
        raise ValueError(f"{len(sizes)} axes")
    return torch.tensor([[1] * missing + sizes, *[[0] * missing + row for row in rows]], dtype=torch.int32)


# Loops of the C functions that take any order.
_AXES = 4


def refuse(name: str, reason: str) -> UsageError:
    """What to raise for a layer that C cannot express."""
    return UsageError(f"export c: {name}: {reason}")
