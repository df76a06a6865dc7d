"""Tang, Hua, Wang: inputs as a sum of binary terms, each of what the terms before it left over.

Tang, Hua, Wang, How to Train a Compact Binary Neural Network with High Accuracy?, AAAI 2017,
https://doi.org/10.1609/aaai.v31i1.10862

Its other parts are PReLU in place of scales, a low learning rate, and the regularizer `bipolar` on weights that are clipped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, Pure, sign
from binarize.binarizers.statistics import wide

__all__ = ["ResidualSign"]

# Mean magnitudes end here, so that a product of them is finite in every type.
LARGEST = 1e4


class _ResidualSign(torch.autograd.Function):
    """sum_m a_m sign(r_m), r_1 = x, a_m = mean |r_m| of a sample, r_(m+1) = r_m - a_m sign(r_m); dx = g h(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, terms: int, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(x)
        ctx.estimator = estimator
        left, total = wide(x).clone(), torch.zeros_like(wide(x))
        axes = tuple(range(1, x.dim()))
        for _ in range(terms):
            size = (left.abs().mean(axes, keepdim=True) if axes else left.abs()).clamp_max_(LARGEST)
            term = sign(left).mul_(size)
            total += term
            left -= term
        return total.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.estimator.derivative(x) * g, None, None


class ResidualSign(Pure):
    """sum_m a_m sign(r_m): x binarized, then what is left of it, `terms` times, with sizes of each sample.

    With r_1 = x: a_m = mean |r_m| over a sample, r_(m+1) = r_m - a_m sign(r_m). The gradient is that of sign(x), sizes
    constant. An output costs `terms` times the bit operations. The sizes are known only with the sample: a layer with it
    is not packed. Shapes: (N, ...) -> same.
    Source: the paper's multiple binarizations.
    """

    def __init__(self, terms: int = 2, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.terms = int(terms)
        self.estimator = SteSign() if estimator is None else estimator

    @property
    def bitplanes(self) -> int:
        """Binary convolutions that one output costs."""
        return self.terms

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _ResidualSign.apply(x, self.terms, self.estimator)
        return out

    def extra_repr(self) -> str:
        return f"terms={self.terms}"
