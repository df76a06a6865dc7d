"""XNOR-Net++: one learned factor per output channel in place of the computed scales.

Bulat, Tzimiropoulos, XNOR-Net++: Improved Binary Neural Networks, BMVC 2019, https://arxiv.org/abs/1909.13863
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.binarizers.statistics import per_channel

__all__ = ["ChannelScale"]


class ChannelScale(nn.Module):
    """y * s with s learned per output channel; starts at 1 and may become negative.

    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's case 1, one factor per channel.
    """

    def __init__(self, channels: int, channel_dim: int = 1, start: float = 1.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.s = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, y: Tensor) -> Tensor:
        return y * per_channel(self.s, y, self.channel_dim)

    def extra_repr(self) -> str:
        return f"{self.s.numel()}, channel_dim={self.channel_dim}"
