"""Layers without parameters that change the number of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MeanChannels", "RepeatChannels"]


class RepeatChannels(nn.Module):
    """x repeated along the channels: (N, C, ...) -> (N, times * C, ...)."""

    def __init__(self, times: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.times, self.channel_dim = times, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.times, dim=self.channel_dim)

    def extra_repr(self) -> str:
        return f"times={self.times}, channel_dim={self.channel_dim}"


class MeanChannels(nn.Module):
    """Mean of groups of channels: (N, groups * C, ...) -> (N, C, ...), channel c from c, c + C, c + 2C, ..."""

    def __init__(self, groups: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.groups, self.channel_dim = groups, channel_dim

    def forward(self, x: Tensor) -> Tensor:
        dim = self.channel_dim % x.dim()
        return x.unflatten(dim, (self.groups, -1)).mean(dim)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, channel_dim={self.channel_dim}"
