"""ReCU: standardized weights whose tails are drawn in before the sign, so that dead ones come back to where signs change.

Xu, Lin, Liu, Chen, Shao, Gao, Tian, Ji, ReCU: Reviving the Dead Weights in Binary Neural Networks, ICCV 2021,
https://arxiv.org/abs/2103.12369; formulas as in the authors' code, https://github.com/z-hXu/ReCU
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.ienet import VARIANCE_EPS
from binarize.binarizers.sign import Estimator, WeightBinarizer
from binarize.binarizers.statistics import standardized
from binarize.binarizers.xnorpp import ChannelScale

__all__ = ["RandomScale", "RectifiedWeight"]


class RectifiedWeight(WeightBinarizer):
    """sign(clip(u, -q, q)), u the standardized weights of a filter times 2 sqrt(2), q = -E ln(2 - 2 tau), E = mean |u|.

    E is that of the whole layer, and q is constant in the backward pass. The gradient passes the sign untouched, stops
    outside the clip, and runs through mean and deviation. A schedule writes tau, from 0.85 to 0.99 in a training.

    Source: the paper's rectified clamp unit; that E is of a layer and u has that size, as in the authors' code.
    """

    per_filter = False
    standardizes = True
    stored = (0, 0)
    tau: Tensor

    def __init__(self, estimator: Estimator | None = None, tau: float = 0.85, axis: int = 0) -> None:
        super().__init__()
        self.estimator = IdentitySign() if estimator is None else estimator
        self.axis = axis
        self.register_buffer("tau", torch.tensor(float(tau)))

    def clipped(self, w: Tensor) -> Tensor:
        """clip(u, -q, q), in float32 at least."""
        u = standardized(w, self.axis, VARIANCE_EPS) * (2 * math.sqrt(2))
        with torch.no_grad():
            q = -u.abs().mean() * (2 - 2 * self.tau.to(u.dtype)).log()
        return u.clamp(-q, q)

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale)."""
        return self.estimator(self.clipped(w)).to(w.dtype), None


class RandomScale(ChannelScale):
    """y * s per output channel, s learned; starts at random between 0 and 1, as in the authors' code."""

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__(channels, channel_dim)
        nn.init.uniform_(self.s)
