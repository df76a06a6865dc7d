"""Bi-Real Net: a triangular estimator for inputs, signs scaled by the mean magnitude for weights.

Liu, Wu, Luo, Yang, Liu, Cheng, Bi-Real Net, ECCV 2018, https://arxiv.org/abs/1808.00278
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, FilterLevels, Levels, WeightBinarizer
from binarize.binarizers.statistics import mean_abs
from binarize.binarizers.xnor import UnscaledSign
from binarize.kernels.elementwise import Formula

__all__ = ["ApproxSign", "ScaledSign"]


class ApproxSign(Estimator):
    """sign(x), with the gradient 2 - 2|x| on [-1, 1] and 0 outside.

    Source: the paper's approximation to the derivative of sign with respect to activations.
    """

    def derivative(self, x: Tensor) -> Tensor:
        return x.abs().mul_(-2).add_(2).clamp_min_(0)

    def formula(self) -> Formula | None:
        return Formula.triangle() if type(self) is ApproxSign else None


class ScaledSign(WeightBinarizer):
    """alpha sign(w) with alpha = mean |w| per filter, a constant in the backward pass.

    gradient="code":   dw = g 1{|w| <= 1}, what the authors' PyTorch code computes.
    gradient="paper":  dw = g alpha 1{|w| <= 1}, the paper's magnitude-aware gradient.

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
        """(sign(w), alpha). Shapes: w (O, ...) -> the same, (O, 1, ...)."""
        return self._split(w, mean_abs(w.detach(), self.axis))

    def split_as(self, w: Tensor, levels: FilterLevels) -> tuple[Tensor, Tensor]:
        assert levels[1] is not None
        return self._split(w, levels[1])

    def _split(self, w: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        if self.gradient == "paper":
            return self.estimator(w), scale
        values: Tensor = UnscaledSign.apply(w, scale, self.estimator)
        return values, scale

    def filter_levels(self, w: Tensor) -> FilterLevels | None:
        if type(self) is not ScaledSign or self.axis:
            return None
        return Levels(), mean_abs(w.detach(), 0)

    def extra_repr(self) -> str:
        return f"gradient={self.gradient!r}"
