"""BiPer: the sign of a sine of the weight, so that a small step of a weight can bring it back and forth.

Vargas, Correa, Hinojosa, Arguello, BiPer: Binary Neural Networks using a Periodic Function, CVPR 2024,
https://arxiv.org/abs/2404.01278; omega = 20 as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.sign import Estimator, WeightBinarizer
from binarize.binarizers.statistics import EPS, wide

__all__ = ["PeriodicSign"]


class PeriodicSign(WeightBinarizer):
    """sign(sin(omega w)), with the gradient omega cos(omega w): the sine's own, passed through the sign untouched.

    A conversion scales the float weights first, so that nearly all of them lie in the half period around 0, where they
    keep their signs.
    Source: the paper's second stage; the scale is our own choice.
    """

    stored = (0, 0)
    scales_weights = True
    # Root mean square of omega w at the start: pi is six of them.
    START_ANGLE = 0.5

    def __init__(self, omega: float = 20.0, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.omega = float(omega)
        self.estimator = IdentitySign() if estimator is None else estimator

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Scale the float weights of a layer, in place; weights that are all 0 stay as they are."""
        size = wide(w).square().mean().sqrt()
        target = self.START_ANGLE / self.omega
        w.copy_(wide(w) * torch.where(size > EPS, target / size, 1.0))

    def periodic(self, w: Tensor) -> Tensor:
        """sin(omega w), what the paper's first stage computes with. In float32 at least."""
        return (wide(w) * self.omega).sin()

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale)."""
        return self.estimator(self.periodic(w)).to(w.dtype), None

    def extra_repr(self) -> str:
        return f"omega={self.omega:g}"
