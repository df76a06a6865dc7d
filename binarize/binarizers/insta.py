"""INSTA-BNN: a threshold that follows each instance's own distribution.

Lee, Kim, Park, Kim, INSTA-BNN: Binary Neural Network with Instance-aware Threshold, ICCV 2023,
https://arxiv.org/abs/2204.07439; no code was published, so that the starting values are our own choice.

Its weights are those of Bi-Real Net (`bireal.ScaledSign`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.sign import Estimator, Pure
from binarize.binarizers.statistics import channel_mean, per_channel, wide

__all__ = ["InstanceSign"]


class InstanceSign(Pure):
    """sign(x - tau - width follow E[(x / width)^3]), the mean over the positions of one instance's channel.

    E[x^3] holds mean, variance and skewness in one number. tau and follow are learned per channel; follow starts at 0,
    where the threshold is that of ReActNet and a layer can still be packed. width is a channel's deviation, a constant: it
    brings x to the size that a BatchNorm in front would give it. An instance without positions, of a linear layer behind
    a pooling, has no distribution: tau alone is its threshold.

    Shapes: (N, C, ...) -> same; channel_dim=-1 for (N, ..., C).
    Source: the paper's INSTA-Th with the third moment.
    """

    width: Tensor
    # A channel that hardly varies would have gradients without bound.
    NARROWEST = 1e-2
    # A third power of what lies farther out would overflow; no instance is meant to.
    FARTHEST = 1e3

    def __init__(self, channels: int, channel_dim: int = 1, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.estimator = ApproxSign() if estimator is None else estimator
        self.tau = nn.Parameter(torch.zeros(channels))
        self.follow = nn.Parameter(torch.zeros(channels))
        self.register_buffer("width", torch.ones(channels))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set tau to the mean and the width to the deviation of each channel of x."""
        mean = channel_mean(x, self.channel_dim)
        moved = wide(x) - per_channel(mean, wide(x), self.channel_dim)
        self.start(mean, channel_mean(moved.square(), self.channel_dim).sqrt())

    @torch.no_grad()
    def start(self, mean: Tensor, deviation: Tensor) -> None:
        """Set tau and the width, both (C,), from known moments of the input."""
        self.tau.copy_(mean)
        self.width.copy_(deviation.clamp_min(self.NARROWEST))

    def _moved(self, x: Tensor) -> Tensor:
        """(x - threshold) / width, in float32 at least."""
        y = wide(x)
        tau, follow, width = (
            per_channel(p, y, self.channel_dim) for p in (self.tau, self.follow, self.width)
        )
        positions = [i for i in range(1, x.dim()) if i != self.channel_dim % x.dim()]
        near = (y / width).clamp(-self.FARTHEST, self.FARTHEST)
        third = near.pow(3).mean(positions, keepdim=True) if positions else torch.zeros_like(follow)
        return (y - tau) / width - follow * third

    def forward(self, x: Tensor) -> Tensor:
        return self.estimator(self._moved(x)).to(x.dtype)

    def relaxed(self, x: Tensor) -> Tensor:
        """The line that stands in for it while it is not binary yet."""
        return self._moved(x).clamp(-1, 1).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.tau.numel()}, channel_dim={self.channel_dim}"
