"""RBNN: triangular estimators that grow steeper during training (its rotation of weights is not here).

Lin, Ji, Xu, Zhang, Wang, Wu, Huang, Lin, Rotated Binary Neural Network, NeurIPS 2020,
https://arxiv.org/abs/2009.13055
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator

__all__ = ["InputTriangle", "Triangle"]


class Triangle(Estimator):
    """sign(x), with the gradient k max(0, sqrt(2) t - t^2 |x|), for weights.

    With c = sqrt(2) this is k max(0, c t - (c t)^2 |x| / 2): a triangle of area 2 k over |x| <= 2 / (c t). A
    schedule writes t and k as for `irnet.Ede`.

    Source: the authors' code.
    """

    c: ClassVar[float] = math.sqrt(2)
    t: Tensor
    k: Tensor

    def __init__(self, t: float = 0.1, k: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("t", torch.tensor(float(t)))
        self.register_buffer("k", torch.tensor(float(k)))

    def derivative(self, x: Tensor) -> Tensor:
        return _triangle(x, self.c * self.t.to(x.dtype), self.k.to(x.dtype))


class InputTriangle(Triangle):
    """The same for inputs: k = 1, and t never below 1, as in the authors' code."""

    def derivative(self, x: Tensor) -> Tensor:
        height = self.c * self.t.to(x.dtype).clamp_min(1)
        return _triangle(x, height, torch.ones_like(height))


def _triangle(x: Tensor, height: Tensor, k: Tensor) -> Tensor:
    return x.abs().mul_(-0.5 * height * height).add_(height).clamp_min_(0).mul_(k)
