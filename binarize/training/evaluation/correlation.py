"""How alike the outputs of two models' layers are: the correlation over images and positions, channel by channel.

A norm in one of them alone changes nothing: correlation knows neither scale nor shift of a channel.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from binarize.modules.outputs import class_dim
from binarize.training.teachers.teacher import Taps

__all__ = ["Correlation"]

_EPS = 1e-30


class Correlation:
    """Sums over batches, from which each layer's correlation follows."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        # Per layer, in float64: how many, then sums of x, y, x^2, y^2, xy per channel.
        self._sums: dict[str, tuple[int, Tensor]] = {}

    def add(self, ours: Taps, theirs: Taps) -> None:
        """Add the outputs that the taps of both models hold, where both have one and of the same shape."""
        for name in self.names:
            if name in ours and name in theirs and ours[name].shape == theirs[name].shape:
                self._add(name, ours[name], theirs[name])

    def _add(self, name: str, x: Tensor, y: Tensor) -> None:
        dim = class_dim(x)
        a, b = (t.movedim(dim, 0).flatten(1).double() for t in (x, y))
        sums = torch.stack([a.sum(1), b.sum(1), (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)]).cpu()
        count, before = self._sums.get(name, (0, torch.zeros_like(sums)))
        self._sums[name] = (count + a.shape[1], before + sums)

    def values(self) -> dict[str, float]:
        """Layer -> the mean over the channels that vary in both; 0 where none does."""
        found = {}
        for name, (count, sums) in self._sums.items():
            x, y, xx, yy, xy = sums / count
            variances = (xx - x * x, yy - y * y)
            alive = (variances[0] > _EPS) & (variances[1] > _EPS)
            correlation = (xy - x * y)[alive] / (variances[0] * variances[1])[alive].sqrt()
            found[name] = float(correlation.mean()) if alive.any() else 0.0
        return found
