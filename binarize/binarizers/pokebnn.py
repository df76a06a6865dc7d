"""PokeBNN: a nonlinearity of two learned slopes, and a wider bound of the gradient of the sign.

Zhang, Zhang, Lew, PokeBNN: A Binary Pursuit of Lightweight Accuracy, CVPR 2022, https://arxiv.org/abs/2112.00133

Its sign is `bnn.SteSign` with clip = 3: the paper tunes the bound within which the gradient passes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.statistics import per_channel
from binarize.kernels.tracing import as_one_node

__all__ = ["DPReLU"]


class DPReLU(Nonlinearity):
    """pos max(z, 0) + neg min(z, 0) + zeta with z = x - gamma, all four learned per channel.

    Starts at pos = 1, neg = 0.25, gamma = zeta = 0. Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's DPReLU.
    """

    def __init__(self, channels: int, channel_dim: int = 1, neg: float = 0.25, pos: float = 1.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.pos = nn.Parameter(torch.full((channels,), float(pos)))
        self.neg = nn.Parameter(torch.full((channels,), float(neg)))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.zeta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        if node is not None:
            return node
        tables = (self.pos, self.neg, self.gamma, self.zeta)
        pos, neg, gamma, zeta = (per_channel(table, x, self.channel_dim) for table in tables)
        z = x - gamma
        return torch.where(z > 0, pos * z, neg * z) + zeta

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(
            self.channel_dim, pre=-self.gamma, positive=self.pos, negative=self.neg, post=self.zeta
        )

    def start_as_relu(self) -> bool:
        nn.init.ones_(self.pos)
        for table in (self.neg, self.gamma, self.zeta):
            nn.init.zeros_(table)
        return True

    def extra_repr(self) -> str:
        return f"{self.pos.numel()}, channel_dim={self.channel_dim}"
