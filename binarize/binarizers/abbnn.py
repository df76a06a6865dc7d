"""A&B BNN: a shifted PReLU whose slopes are powers of two, so that a shift of bits computes it.

Ma, Qiao, Zhang, Guo, A&B BNN: Add&Bit-Operation-Only Hardware-Friendly Binary Neural Network, CVPR 2024,
https://arxiv.org/abs/2403.03739; estimator and starting values as in the authors' code,
https://github.com/Ruichen0424/AB-BNN
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.sign import Estimator
from binarize.binarizers.statistics import per_channel, wide
from binarize.kernels.tracing import as_one_node

__all__ = ["QuantizedRPReLU", "SigmoidSign"]


class SigmoidSign(Estimator):
    """sign(x), with the gradient 2 a s (1 - s), s = 1 / (1 + exp(-a x)): twice the slope of a logistic curve."""

    def __init__(self, a: float = 3.0) -> None:
        super().__init__()
        self.a = float(a)

    def derivative(self, x: Tensor) -> Tensor:
        # By the tail towards 0, which keeps its digits.
        tail = torch.sigmoid(-(wide(x) * self.a).abs_())
        return (tail * (1 - tail)).mul_(2 * self.a).to(x.dtype)

    def extra_repr(self) -> str:
        return f"a={self.a:g}"


class _Round(torch.autograd.Function):
    """x to the next integer; the gradient passes untouched."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return g


class QuantizedRPReLU(Nonlinearity):
    """x - gamma + zeta where x > gamma, else 2^e (x - gamma) + zeta, e = round(exponent); three learned numbers a channel.

    Starts at gamma = zeta = 0 and exponent = -3, a slope of 1/8. The gradient passes the rounding untouched.
    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's quantized RPReLU.
    """

    def __init__(self, channels: int, channel_dim: int = 1, exponent: float = -3.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.zeta = nn.Parameter(torch.zeros(channels))
        self.exponent = nn.Parameter(torch.full((channels,), float(exponent)))

    def slope(self) -> Tensor:
        """2^e per channel."""
        rounded: Tensor = _Round.apply(self.exponent)
        return rounded.exp2()

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        if node is not None:
            return node
        tables = (self.slope(), self.gamma, self.zeta)
        slope, gamma, zeta = (per_channel(table, x, self.channel_dim) for table in tables)
        z = x - gamma
        return torch.where(z > 0, z, slope * z) + zeta

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, pre=-self.gamma, negative=self.slope(), post=self.zeta)

    def extra_repr(self) -> str:
        return f"{self.gamma.numel()}, channel_dim={self.channel_dim}"
