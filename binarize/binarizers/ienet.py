"""IE-Net: several thresholds per input, standardized weights, a learned scale per output channel.

Ding, Chen, Liang, Wang, IE-Net: Information-Enhanced Binary Neural Networks for Accurate Classification,
Electronics 11(6):937, 2022, https://doi.org/10.3390/electronics11060937; formulas from the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from binarize.binarizers.irnet import StandardizedSign
from binarize.binarizers.rbnn import InputTriangle, Triangle
from binarize.binarizers.sign import Estimator, Pure, WeightBinarizer, sign
from binarize.binarizers.statistics import channel_sum, mean_abs, per_channel, wide
from binarize.binarizers.xnorpp import ChannelScale

__all__ = ["Iee", "InputIee", "MultiSign", "OutputMultiSign", "OutputScale", "StandardSign"]

# Added to variances by the authors.
VARIANCE_EPS = 1e-5


class Iee(Triangle):
    """sign(x), with the gradient k max(0, sqrt(3) t - 1.5 t^2 |x|), for weights."""

    c: ClassVar[float] = math.sqrt(3)


class InputIee(InputTriangle):
    """The same for inputs: k = 1, and t never below 1."""

    c: ClassVar[float] = math.sqrt(3)


class StandardSign(WeightBinarizer):
    """sign((w - mean) / sqrt(var + 1e-5)) per filter; the gradient runs through both statistics."""

    stored = (0, 0)

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = Iee() if estimator is None else estimator
        self.axis = axis

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale). Shapes: w (O, ...) -> the same."""
        values: Tensor = StandardizedSign.apply(w, self.estimator, self.axis, VARIANCE_EPS)
        return values, None


class OutputScale(ChannelScale):
    """y * s per output channel, with s starting at the mean magnitude of each filter."""

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Set s to mean |w| per filter."""
        size = mean_abs(w, axis).flatten()
        self.s.copy_(size.repeat(self.s.numel() // size.numel()))


class _MultiSign(torch.autograd.Function):
    """sum_k s_k sign(x + b_k). Keeps x, b and s.

    With r the deviation of a sample, constant in the backward pass, and h_k = h((x + b_k) / r) / r:
        dx = g sum_k s_k h_k,   db_k = sum g s_k h_k per channel,   ds_k = sum g sign(x + b_k)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, s: Tensor, estimator: Estimator, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x, b, s)
        ctx.estimator, ctx.channel_dim = estimator, channel_dim
        y = torch.zeros_like(x)
        for k in range(len(b)):
            y.addcmul_(sign(x + per_channel(b[k], x, channel_dim)), s[k].to(x.dtype))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, b, s = ctx.saved_tensors
        r = _deviation(x.detach())
        dx, db, ds = torch.zeros_like(x), torch.zeros_like(b), torch.zeros_like(s)
        for k in range(len(b)):
            shifted = x + per_channel(b[k], x, ctx.channel_dim)
            ds[k] = sign(shifted).mul_(g).sum(dtype=torch.promote_types(x.dtype, torch.float32))
            part = ctx.estimator.gradient(shifted / r, g).div_(r).mul_(s[k].to(x.dtype))
            db[k] = channel_sum(part, ctx.channel_dim)
            dx += part
        return dx, db, ds, None, None


def _deviation(x: Tensor) -> Tensor:
    """sqrt(var + 1e-5) of each sample, shaped (N, 1, ...) and in the type of x; its largest number where that overflows."""
    flat = wide(x).flatten(1)
    root = flat.var(1, correction=min(flat.shape[1] - 1, 1)).add_(VARIANCE_EPS).sqrt_()
    largest = torch.finfo(x.dtype).max
    # Numbers of very different sizes have a variance that is none.
    root = root.clamp_max_(largest).nan_to_num_(nan=largest)
    return root.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


class MultiSign(Pure):
    """sum_k s_k sign(x + b_k), with K thresholds -b_k per channel and a learned factor s_k each, s_1 = 1.

    One convolution of this sum equals the sum of K binary convolutions with the same weights, so an output
    costs K times the bit operations of a single sign and the weights are stored once. It has up to K + 1
    values per channel; `planes` gives the K two-valued tensors.

    All b_k start at 0 and s_2, ..., s_K at random in (0, 1e-3): with equal s the K branches would stay equal
    for ever. The surrogate sees x divided by the deviation of its sample; the sign does not. Shapes: (N, C,
    ...) -> same; channel_dim=-1 for (..., C).
    """

    # Largest starting value of s_2, ..., s_K.
    START = 1e-3

    def __init__(
        self, channels: int, channel_dim: int = 1, thresholds: int = 3, estimator: Estimator | None = None
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.thresholds = thresholds
        self.estimator = InputIee() if estimator is None else estimator
        self.b = nn.Parameter(torch.zeros(thresholds, channels))
        self.s = nn.Parameter(torch.rand(thresholds - 1) * self.START)

    @property
    def bitplanes(self) -> int:
        """Binary convolutions that one output costs."""
        return self.thresholds

    def factors(self) -> Tensor:
        """(1, s_2, ..., s_K)."""
        return torch.cat([self.s.new_ones(1), self.s])

    def planes(self, x: Tensor) -> list[Tensor]:
        """sign(x + b_k) for each k."""
        return [sign(x + per_channel(b, x, self.channel_dim)) for b in self.b.detach()]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _MultiSign.apply(x, self.b, self.factors(), self.estimator, self.channel_dim)
        return out

    def extra_repr(self) -> str:
        return f"{self.b.shape[1]}, channel_dim={self.channel_dim}, thresholds={self.thresholds}"


class OutputMultiSign(MultiSign):
    """`MultiSign` whose factors s_2, ..., s_K are learned for each output channel, as for ResNet-20 and ImageNet.

    No sum of planes stands for them all, so that a layer multiplies each plane by itself: K convolutions in training too.
    Where a single tensor is asked for, it is the sum with the mean of each factor.
    """

    def __init__(
        self,
        channels: int,
        channel_dim: int = 1,
        thresholds: int = 3,
        estimator: Estimator | None = None,
        out_channels: int = 1,
    ) -> None:
        super().__init__(channels, channel_dim, thresholds, estimator)
        self.s = nn.Parameter(torch.rand(thresholds - 1, out_channels) * self.START)
        self._plane: int | None = None

    def factors(self) -> Tensor:
        """(1, s_2, ..., s_K), each the mean over the output channels. Shape: (K,)."""
        return torch.cat([self.s.new_ones(1), self.s.mean(1)])

    def output_factors(self) -> Tensor:
        """(1, s_2, ..., s_K) of each output channel. Shape: (K, O)."""
        return torch.cat([self.s.new_ones(1, self.s.shape[1]), self.s])

    @contextmanager
    def only(self, plane: int) -> Iterator[None]:
        """Inside, it gives one plane, sign(x + b_k), without a factor."""
        self._plane = plane
        try:
            yield
        finally:
            self._plane = None

    def forward(self, x: Tensor) -> Tensor:
        if self._plane is None:
            return super().forward(x)
        b = self.b[self._plane : self._plane + 1]
        out: Tensor = _MultiSign.apply(x, b, self.b.new_ones(1), self.estimator, self.channel_dim)
        return out
