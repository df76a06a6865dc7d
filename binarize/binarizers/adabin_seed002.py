"""AdaBin's sets, with both numbers of a weight's set learned too, per filter or per layer.

Tu, Chen, Ren, Wang, AdaBin, ECCV 2022, https://arxiv.org/abs/2208.08084, has the set; that alpha and beta of the weights
are found by training and that their derivatives are the simple ones is another form of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin_autograd import guarded
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.sign import Estimator, WeightBinarizer
from binarize.binarizers.statistics import filter_axes, wide

__all__ = ["LearnedWeight"]


class LearnedWeight(WeightBinarizer):
    """beta + alpha sign(w - beta), alpha and beta learned; both start as the deviation and mean of w.

    With z = (w - beta) / alpha, s = sign(z) and h = h(z), both gradients have dw = g h and
    gradient="simple":  dalpha = sum g s,            dbeta = sum g
    gradient="full":    dalpha = sum g (s - h z),    dbeta = sum g (1 - h)

    granularity="filter" learns a pair a filter, "layer" one for all of them. alpha acts through max(|alpha|, 1e-4), as in
    `adabin.AdaptiveInput`: negative or zero, it is still a distance.
    """

    # The numbers are parameters already.
    stored = (0, 0)
    FLOOR = 1e-4

    def __init__(
        self,
        channels: int = 1,
        estimator: Estimator | None = None,
        granularity: Literal["filter", "layer"] = "filter",
        gradient: Literal["simple", "full"] = "simple",
        axis: int = 0,
    ) -> None:
        super().__init__()
        self.estimator = SteSign() if estimator is None else estimator
        self.granularity, self.gradient, self.axis = granularity, gradient, axis
        # A pair a filter belongs to rows of the whole weight.
        self.per_filter = granularity == "layer"
        numbers = channels if granularity == "filter" else 1
        self.alpha = nn.Parameter(torch.ones(numbers))
        self.beta = nn.Parameter(torch.zeros(numbers))

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Set beta to the mean and alpha to the deviation of each filter, or of the layer."""
        axes = filter_axes(w, axis) if self.granularity == "filter" else tuple(range(w.dim()))
        deviation, mean = torch.std_mean(wide(w), axes, correction=0)
        self.alpha = nn.Parameter(deviation.reshape(-1).to(w.dtype))
        self.beta = nn.Parameter(mean.reshape(-1).to(w.dtype))

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(beta + alpha sign(w - beta), no scale): the centre beta cannot be moved behind the convolution."""
        shape = [1] * w.dim()
        shape[self.axis] = -1
        alpha = wide(guarded(self.alpha, self.FLOOR)).view(shape)
        beta = wide(self.beta).view(shape)
        if self.gradient == "full":
            z = (wide(w) - beta) / alpha
        else:
            z = (wide(w) - beta.detach()) / alpha.detach()
        return (beta + alpha * self.estimator(z)).to(w.dtype), None

    def extra_repr(self) -> str:
        return f"{self.alpha.numel()}, granularity={self.granularity!r}, gradient={self.gradient!r}"
