"""SI-BNN: inputs of 0 and 1 with a trained window of the gradient.

Wang, Gong, Wang, Zhu, Zeng, Sparsity-Inducing Binarized Neural Networks, AAAI 2020,
https://doi.org/10.1609/aaai.v34i07.6900

Its weights are those of Bi-Real Net (`bireal.ScaledSign`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Pure, sign
from binarize.binarizers.statistics import wide

__all__ = ["SparseInput"]


class _SparseInput(torch.autograd.Function):
    """1 where x >= theta, else 0, with the gradients of clip(x - theta, -delta, delta) + rho max(x - theta - delta, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, theta: float, rho: float) -> Tensor:
        ctx.save_for_backward(x, delta)
        ctx.theta, ctx.rho = theta, rho
        return sign(x - theta).add_(1).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, delta = ctx.saved_tensors
        width, moved = wide(delta).abs(), wide(x) - ctx.theta
        above, below = moved > width, moved < -width
        dx = g * (~above & ~below) + g * above * ctx.rho
        outside = wide(g) * (above * (1 - ctx.rho) - below.to(wide(g).dtype))
        return dx, (outside.sum() * torch.where(delta < 0, -1.0, 1.0)).to(delta.dtype), None, None


class SparseInput(Pure):
    """1 where x >= theta, else 0; the gradient is 1 where |x - theta| <= delta, rho above, and 0 below.

    delta is learned, one a layer, as the bound of the clip that stands in for the step: d delta is the sum of g over inputs
    above the window less that below it. |delta| is the width, so that training cannot turn it round. Zero padding lies
    inside these two values. Shapes: any -> same.
    Source: the paper's trainable thresholds and its window; theta = 0.5 as there.
    """

    # Made for values behind a ReLU, which may therefore stay in front.
    nonnegative = True

    def __init__(self, theta: float = 0.5, delta: float = 1.0, rho: float = 0.0) -> None:
        super().__init__()
        self.theta, self.rho = float(theta), float(rho)
        self.delta = nn.Parameter(torch.full((1,), float(delta)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _SparseInput.apply(x, self.delta, self.theta, self.rho)
        return out

    def relaxed(self, x: Tensor) -> Tensor:
        """The line that stands in for it while it is not binary yet."""
        return x.clamp(0, 1)

    def extra_repr(self) -> str:
        return f"theta={self.theta:g}, rho={self.rho:g}"
