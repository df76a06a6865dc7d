"""BiT: elastic binary inputs, whose two values and whose threshold are learned.

Liu, Oguz, Pappu, Xiao, Yih, Li, Krishnamoorthi, Mehdad, BiT: Robustly Binarized Multi-distilled Transformer, NeurIPS 2022,
https://arxiv.org/abs/2205.13016; gradients and starting values as in the authors' code.

Its weights are those of BitNet (`bitnet.CentredSign`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin_autograd import guarded
from binarize.binarizers.sign import Pure, sign
from binarize.binarizers.statistics import channel_mean, per_channel, wide

__all__ = ["ElasticSign", "ElasticStep"]


class _Signed(torch.autograd.Function):
    """alpha sign(x): dx = g 1{|x| <= alpha}, dalpha = sum g sign(x) / sqrt(numbers)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return sign(x).mul_(alpha.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha = ctx.saved_tensors
        dalpha = (wide(g) * wide(sign(x))).sum() / math.sqrt(max(x.numel(), 1))
        return g * (wide(x).abs() <= wide(alpha)), dalpha.to(alpha.dtype).view_as(alpha)


class _Stepped(torch.autograd.Function):
    """alpha where x >= alpha / 2, else 0: dx = g 1{0 <= x <= alpha}, dalpha as for a learned step size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return (wide(x) >= wide(alpha) / 2).to(x.dtype).mul_(alpha.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha = ctx.saved_tensors
        place = wide(x) / wide(alpha)
        inside = (place >= 0) & (place <= 1)
        step = (place >= 0.5).to(place.dtype)
        slope = torch.where(inside, step - place, step)
        dalpha = (wide(g) * slope).sum() / math.sqrt(max(x.numel(), 1))
        return g * inside, dalpha.to(alpha.dtype).view_as(alpha)


class _Elastic(Pure):
    """A shift a channel and a size a layer, both learned; below 1e-4 the size acts as 1e-4 and still has a gradient."""

    FLOOR = 1e-4
    # alpha starts at so many mean magnitudes.
    START = 2.0
    # Whether the shift starts at the channel's mean.
    CENTRED = True

    def __init__(self, channels: int, channel_dim: int = 1, alpha: float = 1.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.alpha = nn.Parameter(torch.full((1,), float(alpha)))
        self.shift = nn.Parameter(torch.zeros(channels))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set alpha to so many times the mean magnitude of x, and what is centred to the mean of each channel."""
        self._start(channel_mean(x, self.channel_dim), wide(x).abs().mean())

    @torch.no_grad()
    def start(self, mean: Tensor, deviation: Tensor) -> None:
        """The same from known moments of each channel, both (C,), as if the inputs were normally distributed."""
        size = (wide(mean).square() + wide(deviation).square()).sqrt().mean()
        self._start(mean, size * math.sqrt(2 / math.pi))

    def _start(self, mean: Tensor, size: Tensor) -> None:
        self.alpha.fill_((self.START * size).clamp_min(self.FLOOR))
        if self.CENTRED:
            self.shift.copy_(-mean)

    def _moved(self, x: Tensor) -> Tensor:
        return x + per_channel(self.shift, x, self.channel_dim)

    def extra_repr(self) -> str:
        return f"{self.shift.numel()}, channel_dim={self.channel_dim}"


class ElasticSign(_Elastic):
    """alpha sign(x + shift), for values of both signs; alpha starts at 2 mean |x|, the threshold at each channel's mean.

    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's elastic binarization function.
    """

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Signed.apply(self._moved(x), guarded(self.alpha, self.FLOOR))
        return out

    def relaxed(self, x: Tensor) -> Tensor:
        """The line that stands in for it while it is not binary yet."""
        alpha = guarded(self.alpha, self.FLOOR).to(x.dtype)
        return torch.minimum(torch.maximum(self._moved(x), -alpha), alpha)


class ElasticStep(_Elastic):
    """alpha where x + shift >= alpha / 2, else 0, for values behind a ReLU or a softmax; alpha starts at 4 mean |x|.

    Zero padding lies inside these two values. Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's two-set binarization.
    """

    # Made for values behind a ReLU, which may therefore stay in front.
    nonnegative = True
    START = 4.0
    CENTRED = False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Stepped.apply(self._moved(x), guarded(self.alpha, self.FLOOR))
        return out

    def relaxed(self, x: Tensor) -> Tensor:
        """The line that stands in for it while it is not binary yet."""
        alpha = guarded(self.alpha, self.FLOOR).to(x.dtype)
        return torch.minimum(self._moved(x).clamp_min(0), alpha)
