"""Words of the calls in a C file: addresses, numbers, and the layers' names in comments."""

from __future__ import annotations

import re

from torch import Tensor

from binarize.exporters.c.steps import Step, Value
from binarize.exporters.c.tables import Tables

__all__ = ["at", "numbers", "reads", "said", "spread"]


def at(value: Value, tables: Tables | None = None, step: Step | None = None) -> str:
    """The address of a value; a constant is written among the tables."""
    storage, start = value.storage, value.start
    if storage.pool == "constant":
        assert tables is not None and step is not None
        base = tables.numbers("constant", step, storage.table)
    elif storage.pool in ("input", "output"):
        base = storage.name
    else:
        base = "memory.floats" if storage.pool == "floats" else "memory.words"
        start += storage.offset
    return f"{base} + {start}" if start else base


def reads(step: Step, tables: Tables) -> list[str]:
    """The addresses of all that a step reads."""
    return [at(x, tables, step) for x in step.reads]


def numbers(step: Step, *names: str) -> str:
    """Whole numbers of a step as arguments."""
    return ", ".join(str(int(step.numbers[name])) for name in names)


def spread(table: Tensor | None, channels: int) -> Tensor | None:
    """One number a channel."""
    return table if table is None or table.numel() == channels else table.expand(channels)


def said(step: Step) -> str:
    """The layer's path, fit for a comment."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", step.name)
