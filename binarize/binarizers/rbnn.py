"""RBNN: weights rotated towards their signs, and triangular estimators that grow steeper during training.

Lin, Ji, Xu, Zhang, Wang, Wu, Huang, Lin, Rotated Binary Neural Network, NeurIPS 2020,
https://arxiv.org/abs/2009.13055; formulas from the authors' code, whose gradient leaves the rotation out.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Estimator, WeightBinarizer, sign
from binarize.binarizers.statistics import filter_size, standardized

__all__ = ["InputTriangle", "RotatedWeight", "Triangle"]


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


class RotatedWeight(WeightBinarizer):
    """sign(u + |sin theta| (R1' u R2 - u)): standardized weights u, drawn towards a rotation that is near to its signs.

    u is a matrix a filter, as square as its number of weights allows; R1 and R2 are orthogonal and of the whole layer. theta
    is learned per filter and starts at pi / 2, the rotation itself. `before_epoch` fits R1 and R2 anew; they start at random.
    The gradient runs through the rotation, the mean and the deviation.

    Source: the paper's bi-rotation and its angle adjustment; three rounds an epoch as in the authors' code.
    """

    # theta is a parameter already: it belongs to rows of the whole weight.
    per_filter = False
    keeps_parameters = False
    standardizes = True
    stored = (0, 0)
    left: Tensor
    right: Tensor
    ROUNDS = 3

    def __init__(self, channels: int = 1, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = Triangle() if estimator is None else estimator
        self.axis = axis
        self.theta = nn.Parameter(torch.full((channels,), math.pi / 2))
        self.register_buffer("left", torch.ones(1, 1))
        self.register_buffer("right", torch.ones(1, 1))

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Draw R1 and R2 for the sizes of this weight."""
        n = filter_size(w, axis)
        rows = next(size for size in range(math.isqrt(max(n, 1)), 0, -1) if n % size == 0)
        self.theta = nn.Parameter(w.new_full((w.shape[axis],), math.pi / 2))
        for name, size in (("left", rows), ("right", n // rows)):
            drawn, triangle = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
            rotation = drawn * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
            self.register_buffer(name, rotation.to(device=w.device, dtype=w.dtype))

    @torch.no_grad()
    def before_epoch(self, w: Tensor) -> None:
        """Fit R1 and R2 to the signs that they give, in turns."""
        x = self._matrices(standardized(w, self.axis)).double()
        left, right = self.left.double(), self.right.double()
        for _ in range(self.ROUNDS):
            b = sign(left.T @ x @ right)
            u, _, vh = torch.linalg.svd((b @ right.T @ x.mT).sum(0))
            left = vh.T @ u.T
            u, _, vh = torch.linalg.svd((x.mT @ left @ b).sum(0))
            right = u @ vh
        self.left.copy_(left)
        self.right.copy_(right)

    def _matrices(self, u: Tensor) -> Tensor:
        """Shapes: (.., O, ..) -> (O, a, b)."""
        rows, columns = self.left.shape[0], self.right.shape[0]
        if rows * columns != filter_size(u, self.axis):  # not started from a weight
            rows, columns = 1, filter_size(u, self.axis)
        return u.movedim(self.axis, 0).reshape(-1, rows, columns)

    def rotated(self, w: Tensor) -> Tensor:
        """u + |sin theta| (R1' u R2 - u), in float32 at least."""
        u = standardized(w, self.axis)
        x = self._matrices(u)
        if x.shape[1:] != (self.left.shape[0], self.right.shape[0]):
            return u
        left, right = self.left.to(x.dtype), self.right.to(x.dtype)
        share = self.theta.to(x.dtype).sin().abs().view(-1, 1, 1)
        drawn = x + share * (left.T @ x @ right - x)
        first = u.movedim(self.axis, 0)
        return drawn.reshape(first.shape).movedim(0, self.axis)

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale)."""
        return self.estimator(self.rotated(w)).to(w.dtype), None
