"""One call of the kernels that take a tensor as rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels import variants
from binarize.kernels.buffers.memory import NOTHING, extent

__all__ = ["Formula", "RowCall", "Rows", "empty_sums"]

SUMS = 4  # ROW_SUMS of kernels.h


@dataclass(frozen=True)
class Rows:
    """How a tensor's memory is cut: `count` rows of `length` elements, the last one perhaps shorter."""

    count: int
    length: int
    total: int
    period: int
    # Whether each element of a pixel of `period` channels has its own numbers.
    across: bool = False


@dataclass(frozen=True)
class Formula:
    """A derivative of the sign that the kernels know: a kind (ESTIMATE_* of kernels.h) and its two numbers."""

    kind: int
    a: float = 0.0
    b: float = 0.0

    @classmethod
    def clip(cls, limit: float) -> Formula:
        """1 where |x| <= limit, else 0."""
        return cls(0, limit)

    @classmethod
    def triangle(cls) -> Formula:
        """max(2 - 2 |x|, 0)."""
        return cls(1)

    @classmethod
    def decay(cls, t: float, k: float) -> Formula:
        """k t (1 - tanh(t x)^2)."""
        return cls(2, t, k)


def empty_sums(rows: Rows) -> Tensor:
    """Unwritten sums of each row, or of each channel of a row where numbers lie across it: float64 (rows, 4)."""
    return torch.empty((rows.count * (rows.period if rows.across else 1), SUMS), dtype=torch.float64)


class RowCall(NamedTuple):
    """What a kernel of rows is given: its number, the tensors, and of its formula a kind and two numbers.

    Shapes: g and out like x; centre, radius, divisor, low, high and post (rows.period,); sums as `empty_sums` makes them.
    """

    op: int
    rows: Rows
    x: Tensor
    g: Tensor | None = None
    out: Tensor | None = None
    centre: Tensor | None = None
    radius: Tensor | None = None
    divisor: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    post: Tensor | None = None
    sums: Tensor | None = None
    kind: int = 0
    a: float = 0.0
    b: float = 0.0

    def run(self) -> None:
        """Fills `out` and `sums`. Raises: UsageError, where the kernels refuse it."""
        variant, module = variants.active(needed=False), variants.native()
        assert variant is not None and module is not None
        rows, x = self.rows, self.x
        given = (self.centre, self.radius, self.divisor, self.low, self.high, self.post)
        numbers = [_numbers(one, rows) for one in given]
        tensors = (x, self.g, self.out, *numbers, self.sums)
        buffers = [number for one in tensors for number in (NOTHING if one is None else extent(one))]
        try:
            module.rows(
                variant.index, self.op, self.kind, rows.count, rows.length, rows.total, rows.period,
                int(x.dtype == torch.bfloat16), int(rows.across), torch.get_num_threads(), *buffers, self.a, self.b,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(f"the kernels refuse {tuple(x.shape)} {x.dtype} in {rows}: {error}") from error


def _numbers(numbers: Tensor | None, rows: Rows) -> Tensor | None:
    if numbers is None:
        return None
    assert numbers.numel() == rows.period and numbers.is_cpu, (numbers.shape, rows)
    if numbers.dtype == torch.float32 and numbers.is_contiguous():
        return numbers
    return numbers.detach().to(torch.float32).contiguous()
