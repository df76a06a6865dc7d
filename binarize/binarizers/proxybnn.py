"""ProxyBNN: the weight before the sign is a product of coefficients and a trained basis.

He, Mo, Cheng, Xu, Hu, Liu, Cheng, ProxyBNN: Learning Binarized Neural Networks via Proxy Matrices, ECCV 2020,
https://doi.org/10.1007/978-3-030-58580-8_14; no code was published, so that sizes and starts are our own choice.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Estimator, WeightBinarizer
from binarize.binarizers.statistics import filter_size, wide
from binarize.binarizers.xnor import ScaledSign

__all__ = ["BasisWeight"]


class BasisWeight(WeightBinarizer):
    """alpha sign(C P), C the latent weight, P a learned basis, alpha = mean |C P| per filter and constant.

    P spans a filter of at most 1024 weights, else a kernel, else as much of a filter as divides it; every such piece of a
    layer has the same P. dC = d(C P) P', dP = C' d(C P). P starts as the identity, so that C P is the float weight. Any other
    orthogonal P with C = w P' gives the same steps under plain SGD, since dC P and C dP do not depend on it.

    Only the signs of C P and alpha are of use after the training.
    """

    per_filter = False
    keeps_parameters = False
    LARGEST = 1024

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.signs = ScaledSign(estimator, axis=axis)
        self.axis = axis
        self.basis = nn.Parameter(torch.ones(1, 1))

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Make P the identity of the size that this weight needs."""
        size = _piece(w.movedim(axis, 0), self.LARGEST)
        self.basis = nn.Parameter(torch.eye(size, device=w.device, dtype=w.dtype))

    def combined(self, w: Tensor) -> Tensor:
        """C P in the shape of w."""
        first = w.movedim(self.axis, 0)
        size = self.basis.shape[0]
        if filter_size(w, self.axis) % size:
            return w
        return (
            (first.reshape(-1, size) @ self.basis.to(first.dtype)).reshape(first.shape).movedim(0, self.axis)
        )

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(C P), alpha)."""
        self.signs.axis = self.axis
        values, scale = self.signs.split(self.combined(wide(w)))
        return values.to(w.dtype), scale.to(w.dtype)


def _piece(filters: Tensor, largest: int) -> int:
    """How many weights of a filter one basis spans. Shapes: filters (O, ...)."""
    n = max(filter_size(filters, 0), 1)
    kernel = math.prod(filters.shape[2:])
    if n <= largest:
        return n
    if 1 < kernel <= largest:
        return kernel
    return next(size for size in range(largest, 0, -1) if n % size == 0)
