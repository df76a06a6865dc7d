"""Bi-Real Net: a triangular estimator for inputs, signs scaled by the mean magnitude for weights.

Liu, Wu, Luo, Yang, Liu, Cheng, Bi-Real Net, ECCV 2018, https://arxiv.org/abs/1808.00278
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, sign
from binarize.binarizers.statistics import mean_abs

__all__ = ["ApproxSign", "ScaledSign"]


class ApproxSign(Estimator):
    """sign(x), with the gradient 2 - 2|x| on [-1, 1] and 0 outside.

    Source: section 3.2, eq. 6 to 8.
    """

    def derivative(self, x: Tensor) -> Tensor:
        return x.abs().mul_(-2).add_(2).clamp_min_(0)


class _UnscaledSign(torch.autograd.Function):
    """sign(w), to be multiplied by a constant scale that the gradient on its way to w is freed from."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.estimator = estimator
        return sign(w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        w, scale = ctx.saved_tensors
        return (ctx.estimator.derivative(w) * (g / scale)).to(w.dtype), None, None


class ScaledSign(nn.Module):
    """alpha sign(w) with alpha = mean |w| per filter, a constant in the backward pass.

    gradient="code":   dw = g 1{|w| <= 1}, what the authors' PyTorch code computes.
    gradient="paper":  dw = g alpha 1{|w| <= 1}, the magnitude-aware gradient of section 3.3, eq. 9 and 10.

    Both train alike under Adam, which divides a factor per filter out again; under SGD they differ.
    """

    def __init__(
        self, estimator: Estimator | None = None, gradient: Literal["code", "paper"] = "code", axis: int = 0
    ) -> None:
        super().__init__()
        self.estimator = SteSign() if estimator is None else estimator
        self.gradient = gradient
        self.axis = axis

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(w), alpha)."""
        scale = mean_abs(w.detach(), self.axis).to(w.dtype)
        if self.gradient == "paper":
            return self.estimator(w), scale
        values: Tensor = _UnscaledSign.apply(w, scale, self.estimator)
        return values, scale

    def forward(self, w: Tensor) -> Tensor:
        values, scale = self.split(w)
        return values * scale

    def extra_repr(self) -> str:
        return f"gradient={self.gradient!r}"
