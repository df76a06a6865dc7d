"""ReActNet: a learned threshold per channel before the sign, a shifted PReLU after the add.

Liu, Shen, Savvides, Cheng, ReActNet, ECCV 2020, https://arxiv.org/abs/2003.03488

Its weights are those of Bi-Real Net (`bireal.ScaledSign`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.sign import Estimator, Levels, Pure, sign_
from binarize.binarizers.statistics import channel_mean, channel_sum, per_channel, wide
from binarize.kernels import elementwise
from binarize.kernels.tiles import index_blocks
from binarize.kernels.tracing import as_one_node

__all__ = ["RPReLU", "RSign"]


class _RSign(torch.autograd.Function):
    """sign(x - tau) per channel; keeps x and tau. With z = (x - tau) / width: dx = g h(z) / width, dtau = -sum dx."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, tau: Tensor, width: Tensor, estimator: Estimator, channel_dim: int
    ) -> Tensor:
        ctx.save_for_backward(x, tau, width)
        ctx.estimator, ctx.channel_dim = estimator, channel_dim
        native = elementwise.split(x, elementwise.plane_rows(x, channel_dim), tau)
        if native is not None:
            return native
        threshold, out = per_channel(tau, x, channel_dim), torch.empty_like(x)
        for at in index_blocks(x):
            out[at] = sign_(x[at] - threshold)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, tau, width = ctx.saved_tensors
        rows, formula = elementwise.plane_rows(x, ctx.channel_dim), ctx.estimator.formula()
        native = elementwise.estimate(
            x, g, rows, formula, centre=tau, radius=width, divisor=width, wants_sums=True
        )
        if native is not None and native[1] is not None:
            by_channel = native[1].view(-1, len(tau), native[1].shape[1]).sum(0)
            return native[0], -by_channel[:, 1].to(tau.dtype), None, None, None
        threshold, dx = per_channel(tau, x, ctx.channel_dim), torch.empty_like(x)
        narrow = per_channel(width.reciprocal(), x, ctx.channel_dim)
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            dx = ctx.estimator.gradient((x - threshold) * narrow, g) * narrow
            return dx, -channel_sum(dx, ctx.channel_dim).to(tau.dtype), None, None, None
        dtau = torch.zeros_like(tau, dtype=torch.promote_types(x.dtype, torch.float32))
        for at in index_blocks(x):
            z = (x[at] - threshold).mul_(narrow)
            dx[at] = ctx.estimator.gradient(z, g[at]).mul_(narrow)
            dtau -= channel_sum(dx[at], ctx.channel_dim)
        return dx, dtau.to(tau.dtype), None, None, None


class RSign(Pure):
    """sign(x - tau) with tau learned per channel; starts at 0.

    The estimator is as wide as `width` says, per channel: 1, and after `calibrate` or `start` the channel's own deviation,
    so that as many inputs pass a gradient whatever their size. The paper knows no width: adaptive=False leaves it at 1.
    Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's ReAct-Sign; the authors' code learns -tau.
    """

    width: Tensor
    # A channel that hardly varies would have gradients without bound.
    NARROWEST = 1e-2

    def __init__(
        self,
        channels: int,
        channel_dim: int = 1,
        estimator: Estimator | None = None,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.estimator = ApproxSign() if estimator is None else estimator
        self.adaptive = adaptive
        self.tau = nn.Parameter(torch.zeros(channels))
        self.register_buffer("width", torch.ones(channels))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set tau to the mean and the width to the deviation of each channel of x."""
        mean = channel_mean(x, self.channel_dim)
        spread = channel_mean(
            (wide(x) - per_channel(mean, wide(x), self.channel_dim)).square(), self.channel_dim
        )
        self.start(mean, spread.sqrt())

    @torch.no_grad()
    def start(self, mean: Tensor, deviation: Tensor) -> None:
        """Set tau and the width, both (C,), from known moments of the input."""
        self.tau.copy_(mean)
        if self.adaptive:
            self.width.copy_(deviation.clamp_min(self.NARROWEST))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RSign.apply(x, self.tau, self.width, self.estimator, self.channel_dim)
        return out

    def input_levels(self) -> Levels | None:
        return Levels(threshold=self.tau.detach()) if type(self) is RSign else None

    def extra_repr(self) -> str:
        return f"{self.tau.numel()}, channel_dim={self.channel_dim}"


class _RPReLU(torch.autograd.Function):
    """bend(x - gamma) + zeta; keeps x and two vectors. At x = gamma the gradients are those of the lower side.

    torch's prelu takes several times as long in its backward pass, and in bfloat16 more than a convolution.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, zeta: Tensor, slope: Tensor, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x, gamma, slope)
        ctx.channel_dim = channel_dim
        native = elementwise.bend(x, elementwise.plane_rows(x, channel_dim), None, slope, gamma, zeta)
        if native is not None:
            return native
        g, z, s = (per_channel(p, x, channel_dim) for p in (gamma, zeta, slope))
        out = torch.empty_like(x)
        for at in index_blocks(x):
            moved = x[at] - g
            out[at] = moved.clamp_min(0).addcmul_(moved.clamp_max_(0), s).add_(z)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, gamma, slope = ctx.saved_tensors
        dim = ctx.channel_dim
        native = elementwise.unbend(
            x, grad, elementwise.plane_rows(x, dim), None, slope, gamma, negative_at_zero=True
        )
        if native is not None:
            dx, (_, under, total, through) = native
            return (
                dx, -through.to(gamma.dtype), total.to(gamma.dtype), under.to(slope.dtype), None,
            )  # fmt: skip
        shift, s = per_channel(gamma, x, dim), per_channel(slope, x, dim)
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            upper = grad * (x > shift)
            lower = grad - upper
            dx = upper + lower * s
            sums = -channel_sum(dx, dim), channel_sum(grad, dim), channel_sum((x - shift) * lower, dim)
            return dx, sums[0].to(gamma.dtype), sums[1].to(gamma.dtype), sums[2].to(slope.dtype), None
        dx = torch.empty_like(x)
        wider = torch.promote_types(x.dtype, torch.float32)
        dgamma, dzeta, dslope = (torch.zeros_like(slope, dtype=wider) for _ in range(3))
        for at in index_blocks(x):
            moved, g = x[at] - shift, grad[at]
            upper = torch.ops.aten.threshold_backward(g, moved, 0)
            # g where x <= gamma, exactly: one of the two is 0.
            lower = g - upper
            dslope += channel_sum(moved.mul_(lower), dim)
            dzeta += channel_sum(g, dim)
            dx[at] = upper.addcmul_(lower, s)
            dgamma -= channel_sum(dx[at], dim)
        return dx, dgamma.to(gamma.dtype), dzeta.to(gamma.dtype), dslope.to(slope.dtype), None


class RPReLU(Nonlinearity):
    """x - gamma + zeta where x > gamma, else slope (x - gamma) + zeta; all three learned per channel.

    Starts at gamma = zeta = 0 and slope = 0.25. Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's ReAct-PReLU; starting values from the authors' code.
    """

    def __init__(self, channels: int, channel_dim: int = 1, slope: float = 0.25) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.zeta = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), float(slope)))

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        if node is not None:
            return node
        out: Tensor = _RPReLU.apply(x, self.gamma, self.zeta, self.slope, self.channel_dim)
        return out

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, pre=-self.gamma, negative=self.slope, post=self.zeta)

    def start_as_relu(self) -> bool:
        for table in (self.gamma, self.zeta, self.slope):
            nn.init.zeros_(table)
        return True

    def extra_repr(self) -> str:
        return f"{self.gamma.numel()}, channel_dim={self.channel_dim}"
