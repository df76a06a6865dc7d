"""How a whole exported file answers beside the packed model, each on its own: told, and held to nothing.

Float sums in another order differ in the last digit, and a last digit may turn a sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["EndToEnd", "largest_difference", "largest_magnitude"]


class EndToEnd:
    """The comparison over some batches."""

    def __init__(self) -> None:
        self.inputs = 0
        # Of all outputs.
        self.difference = 0.0
        # Inputs for which the largest of the first output is the same; None where that is no table of scores.
        self.same_class: int | None = 0

    def add(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Take one batch: the outputs of the packed model, and those of the file."""
        self.difference = max(
            self.difference, *(largest_difference(a, b) for a, b in zip(ours, theirs, strict=True))
        )
        self.inputs += len(ours[0]) if ours[0].dim() else 1
        if ours[0].dim() != 2 or ours[0].shape[1] < 2:
            self.same_class = None
        if self.same_class is not None:
            self.same_class += int((ours[0].argmax(1) == theirs[0].argmax(1)).sum())

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {"inputs": self.inputs, "largest_difference": self.difference, "same_class": self.same_class}

    def __str__(self) -> str:
        same = "" if self.same_class is None else f", same class on {self.same_class} of {self.inputs}"
        return f"Whole model: largest difference {self.difference:.1e}{same}."


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Between two tensors of one shape; 0 where they are equal, infinities too."""
    return 0.0 if not a.numel() or torch.equal(a, b) else float((a.double() - b.double()).abs().max())


def largest_magnitude(a: Tensor) -> float:
    """Of a tensor, and never 0: something to divide by."""
    return max(float(a.double().abs().max()) if a.numel() else 0.0, 1e-30)
