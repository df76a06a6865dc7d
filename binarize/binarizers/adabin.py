"""AdaBin: two values per filter and two per layer of activations, each set as free as two numbers can be.

Tu, Chen, Ren, Wang, AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets, ECCV 2022,
https://arxiv.org/abs/2208.08084

The formulas and their gradients are in adabin_formulas.py.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin_autograd import (
    adaptive_input,
    adaptive_weight,
    guarded,
    maxout,
    mean_and_deviation,
)
from binarize.binarizers.adabin_formulas import scale_at_least
from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.irnet import Ede
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.sign import Estimator, FilterLevels, Levels, Pure, WeightBinarizer
from binarize.binarizers.statistics import wide
from binarize.kernels.tracing import as_one_node

__all__ = ["AdaptiveInput", "AdaptiveWeight", "Maxout"]


class AdaptiveWeight(WeightBinarizer):
    """beta + alpha sign(w - beta) per filter: the two values nearest to a filter of that mean and deviation.

    beta = mean(w), alpha = ||w - beta||_2 / sqrt(n); both are computed anew from w in each forward pass.
    A constant filter gives beta +- 1e-8 and a finite gradient.

    Source: the paper's equalization of weights; the gradient is that of the authors' code.
    """

    stored = (2, 0)

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = Ede() if estimator is None else estimator
        self.axis = axis

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(beta + alpha sign(w - beta), no scale): the centre beta cannot be moved behind the convolution.

        Shapes: w (O, ...) -> the same.
        """
        return adaptive_weight(w, self.estimator, self.axis), None

    def split_as(self, w: Tensor, levels: FilterLevels) -> tuple[Tensor, None]:
        beta, alpha = levels[0].centre, levels[0].radius
        assert beta is not None and alpha is not None
        return adaptive_weight(w, self.estimator, self.axis, (beta, alpha)), None

    def filter_levels(self, w: Tensor) -> FilterLevels | None:
        if type(self) is not AdaptiveWeight or self.axis:
            return None
        beta, alpha = mean_and_deviation(w.detach(), 0)
        return Levels(beta, alpha, beta), None


class AdaptiveInput(Pure):
    """beta + alpha sign(x - beta) with one learned alpha and one learned beta per layer.

    form="paper":  beta + alpha sign((x - beta) / alpha)
    form="code":   alpha (beta + sign((x - beta) / alpha)), as in the authors' code and checkpoints
    The two agree at the start (alpha = 1, beta = 0).

    alpha acts through max(|alpha|, 1e-4), so that training cannot make it zero or negative; below that limit
    the gradient still passes, so that it can grow again. Shapes: any -> same.

    Source: the paper's gradient-based optimization of the activation set.
    """

    # Smallest scale that alpha can act as.
    FLOOR = 1e-4

    def __init__(self, estimator: Estimator | None = None, form: Literal["paper", "code"] = "paper") -> None:
        super().__init__()
        self.estimator = ApproxSign() if estimator is None else estimator
        self.form = form
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set beta to the mean and alpha to the deviation of x."""
        x = wide(x)
        deviation, mean = torch.std_mean(x, correction=0)
        alpha = deviation.clamp_min(self.FLOOR)
        self.alpha.copy_(alpha)
        self.beta.copy_(mean)

    def scale(self) -> Tensor:
        """alpha as it acts: max(|alpha|, 1e-4)."""
        return guarded(self.alpha, self.FLOOR)

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.scale()
        out = adaptive_input(x, alpha, self.beta, self.estimator)
        if self.form == "paper":
            return out
        # alpha (beta + s) lies beta (alpha - 1) above beta + alpha s.
        return out + (self.beta * (alpha - 1)).to(x.dtype)

    def input_levels(self) -> Levels | None:
        if type(self) is not AdaptiveInput:
            return None
        radius, threshold = scale_at_least(self.alpha.detach(), self.FLOOR), self.beta.detach()
        return Levels(threshold, radius, threshold if self.form == "paper" else radius * threshold)

    def extra_repr(self) -> str:
        return f"form={self.form!r}"


class Maxout(Nonlinearity):
    """pos max(x, 0) - neg max(-x, 0), with pos and neg learned per channel.

    Starts at pos = 1, neg = 0.25. Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's Maxout; starting values from the authors' code.
    """

    def __init__(self, channels: int, channel_dim: int = 1, neg: float = 0.25, pos: float = 1.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.pos = nn.Parameter(torch.full((channels,), float(pos)))
        self.neg = nn.Parameter(torch.full((channels,), float(neg)))

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        return maxout(x, self.pos, self.neg, self.channel_dim) if node is None else node

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, positive=self.pos, negative=self.neg)

    def start_as_relu(self) -> bool:
        nn.init.ones_(self.pos)
        nn.init.zeros_(self.neg)
        return True

    def extra_repr(self) -> str:
        return f"{self.pos.numel()}, channel_dim={self.channel_dim}"
