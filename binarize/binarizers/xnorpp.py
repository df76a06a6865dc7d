"""XNOR-Net++: learned factors per output channel, and per output position, in place of the computed scales.

Bulat, Tzimiropoulos, XNOR-Net++: Improved Binary Neural Networks, BMVC 2019, https://arxiv.org/abs/1909.13863
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.statistics import per_channel
from binarize.errors import UsageError

__all__ = ["ChannelScale", "MapScale"]


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


class MapScale(nn.Module):
    """y * G with G learned for an output of one size, in one of the paper's shapes; starts at 1.

    shape="dense":   G of its own for each channel and position                    case 2
    shape="planes":  a_c b_p, one factor a channel and one a position              case 3
    shape="axes":    a_c b_h c_w, one a channel, one a row and one a column        case 4
    Case 1, one factor a channel, is `ChannelScale`; where nothing tells the size of the output (`depth`, `height`,
    `width`), or it has one position, they all are. Such a layer takes images of one size, and is not packed: its scale
    is no number a channel.
    Shapes: (N, C, ...) with `size` behind the channels -> same.
    Source: section 3.3 of the paper.
    """

    def __init__(
        self,
        channels: int,
        channel_dim: int = 1,
        shape: Literal["dense", "planes", "axes"] = "axes",
        depth: int = 0,
        height: int = 0,
        width: int = 0,
    ) -> None:
        super().__init__()
        if shape not in ("dense", "planes", "axes"):
            raise UsageError(f"xnorpp.MapScale: shape is {shape!r}; expected dense, planes or axes")
        self.channel_dim, self.shape = channel_dim, shape
        size = tuple(n for n in (depth, height, width) if n)
        self.size = size if math.prod(size) > 1 else ()
        ones = [1] * len(self.size)
        if shape == "dense" or not self.size:
            factors = [(channels, *self.size)]
        elif shape == "planes":
            factors = [(channels, *ones), (1, *self.size)]
        else:
            alone = [(1, *ones[:i], n, *ones[i + 1 :]) for i, n in enumerate(self.size)]
            factors = [(channels, *ones), *alone]
        self.factors = nn.ParameterList(nn.Parameter(torch.ones(factor)) for factor in factors)

    def forward(self, y: Tensor) -> Tensor:
        if not self.size:
            return y * per_channel(self.factors[0], y, self.channel_dim)
        if tuple(y.shape[2:]) != self.size:
            raise UsageError(
                f"xnorpp.MapScale: an output of {tuple(y.shape[2:])} positions; its factors are for {self.size}\n"
                "  give images of the size that the model was converted with, or use xnorpp.ChannelScale"
            )
        for factor in self.factors:
            y = y * factor
        return y

    def extra_repr(self) -> str:
        return f"shape={self.shape!r}, size={self.size}"
