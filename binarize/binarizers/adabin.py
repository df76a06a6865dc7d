"""AdaBin: two values per filter and two per layer of activations, each set as free as two numbers can be.

Tu, Chen, Ren, Wang, AdaBin: Improving Binary Neural Networks with Adaptive Binary Sets, ECCV 2022,
https://arxiv.org/abs/2208.08084
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.irnet import Ede
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.sign import Estimator, FilterLevels, Levels, Pure, WeightBinarizer, sign, sign_
from binarize.binarizers.statistics import (
    EPS,
    channel_sum,
    filter_axes,
    filter_size,
    per_channel,
    wide,
)
from binarize.kernels import elementwise
from binarize.kernels.tiles import index_blocks, pieces
from binarize.kernels.tracing import as_one_node

__all__ = ["AdaptiveInput", "AdaptiveWeight", "Maxout"]


def mean_and_deviation(w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(mean, biased deviation but at least 1e-8) per filter in float32 at least, all axes kept."""
    native = elementwise.deviations(w, elementwise.filter_rows(w, axis))
    if native is not None:
        shape = (-1, *[1] * (w.dim() - 1))
        return native[0].view(shape), native[1].clamp_min_(EPS).view(shape)
    axes, root = filter_axes(w, axis), math.sqrt(filter_size(w, axis))
    beta = wide(w).mean(axes, keepdim=True)
    alpha = torch.empty_like(beta)
    for at in index_blocks(w, axis):
        norm = torch.linalg.vector_norm(wide(w[at]) - beta[at], dim=axes, keepdim=True)
        alpha[at] = norm.div_(root).clamp_min_(EPS)
    return beta, alpha


class _AdaptiveWeight(torch.autograd.Function):
    """beta + alpha sign(w - beta), with beta the mean and alpha the biased deviation of a filter.

    The gradient runs through both statistics. With u = (w - beta) / alpha, s = sign(u), h = h(u) and n
    weights in a filter:

        dw_j = g_j h_j + mean_i(g_i (1 - h_i)) + u_j / n * sum_i g_i (s_i - h_i u_i)

    Keeps w and the two statistics alone.
    """

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, estimator: Estimator, axis: int, known: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        beta, alpha = mean_and_deviation(w, axis) if known is None else known
        rows = elementwise.filter_rows(w, axis)
        out = elementwise.split(w, rows, beta, (beta - alpha, beta + alpha))
        if out is None:
            out = torch.empty_like(w)
            for at in index_blocks(w, axis):
                out[at] = sign_(wide(w[at]) - beta[at]).mul_(alpha[at]).add_(beta[at])
        ctx.save_for_backward(w, alpha, beta)
        ctx.estimator, ctx.axis = estimator, axis
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        w, alpha, beta = ctx.saved_tensors
        native = elementwise.estimate(
            w,
            g,
            elementwise.filter_rows(w, ctx.axis),
            ctx.estimator.formula(),
            centre=beta,
            radius=alpha,
            through_filter=True,
        )
        if native is not None:
            return native[0], None, None, None
        axes, n = filter_axes(w, ctx.axis), filter_size(w, ctx.axis)
        # Where the clamp of alpha acts, alpha does not follow w.
        moves = (alpha > EPS).to(alpha.dtype) / n
        if torch.is_grad_enabled():  # asked for with create_graph=True: both statistics follow w
            centred = wide(w) - wide(w).mean(axes, keepdim=True)
            spread = centred.square().mean(axes, keepdim=True).clamp_min(EPS * EPS).sqrt()
            u = centred / torch.where(alpha > EPS, spread, alpha)
            gh = ctx.estimator.gradient(u, wide(g))
            shift = (wide(g) - gh).sum(axes, keepdim=True) / n
            stretch = (sign(u) * wide(g) - gh * u).sum(axes, keepdim=True)
            return (u * stretch * moves + gh + shift).to(w.dtype), None, None, None
        dw = torch.empty_like(w)
        for at in index_blocks(w, ctx.axis):
            g_wide = wide(g[at])
            u = (wide(w[at]) - beta[at]).div_(alpha[at])
            gh = ctx.estimator.gradient(u, g_wide)
            shift = (g_wide.sum(axes, keepdim=True) - gh.sum(axes, keepdim=True)) / n
            stretch = sign(u).mul_(g_wide).addcmul_(gh, u, value=-1).sum(axes, keepdim=True)
            dw[at] = u.mul_(stretch * moves[at]).add_(gh).add_(shift)
        return dw, None, None, None


class AdaptiveWeight(WeightBinarizer):
    """beta + alpha sign(w - beta) per filter: the two values nearest to a filter of that mean and deviation.

    beta = mean(w), alpha = ||w - beta||_2 / sqrt(n); both are computed anew from w in each forward pass.
    A constant filter gives beta +- 1e-8 and a finite gradient.

    Source: the paper's equalization of weights; the gradient is that of the authors' code.
    """

    stored = (2, 0)

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = Ede() if estimator is None else estimator
        self.axis = axis

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(beta + alpha sign(w - beta), no scale): the centre beta cannot be moved behind the convolution."""
        values: Tensor = _AdaptiveWeight.apply(w, self.estimator, self.axis, None)
        return values, None

    def split_as(self, w: Tensor, levels: FilterLevels) -> tuple[Tensor, None]:
        known = levels[0].centre, levels[0].radius
        values: Tensor = _AdaptiveWeight.apply(w, self.estimator, self.axis, known)
        return values, None

    def filter_levels(self, w: Tensor) -> FilterLevels | None:
        if type(self) is not AdaptiveWeight or self.axis:
            return None
        beta, alpha = mean_and_deviation(w.detach(), 0)
        return Levels(beta, alpha, beta), None


class _AdaptiveInput(torch.autograd.Function):
    """beta + alpha sign(x - beta) with the gradients to x, alpha and beta; keeps x and the two numbers.

    With z = (x - beta) / alpha, s = sign(z), h = h(z):
        dx = g h,   dalpha = sum g (s - h z),   dbeta = sum g (1 - h)
    Sums are accumulated in float32 for 16-bit inputs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(x, alpha, beta)
        ctx.estimator = estimator
        alpha, beta = alpha.to(x.dtype), beta.to(x.dtype)
        native = elementwise.split(x, elementwise.whole(x), beta, (beta - alpha, beta + alpha))
        if native is not None:
            return native
        out = torch.empty_like(x)
        for x_i, out_i in pieces(x, out):
            out_i.copy_(sign_(x_i - beta).mul_(alpha).add_(beta))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, alpha, beta = ctx.saved_tensors
        native = elementwise.estimate(
            x, g, elementwise.whole(x), ctx.estimator.formula(), centre=beta, radius=alpha, wants_sums=True
        )
        if native is not None and native[1] is not None:
            sum_g, sum_dx, sum_alpha, _ = native[1].sum(0)
            return (
                native[0],
                sum_alpha.to(alpha.dtype).view_as(alpha),
                (sum_g - sum_dx).to(beta.dtype).view_as(beta),
                None,
            )
        wider = torch.promote_types(x.dtype, torch.float32)
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            z = (x - beta.to(x.dtype)) / alpha.to(x.dtype)
            dx = ctx.estimator.gradient(z, g)
            dbeta = g.sum(dtype=wider) - dx.sum(dtype=wider)
            dalpha = (sign(z) * g - z * dx).sum(dtype=wider)
            return dx, dalpha.to(alpha.dtype).view_as(alpha), dbeta.to(beta.dtype).view_as(beta), None
        dx = torch.empty_like(x)
        dalpha, dbeta = torch.zeros_like(alpha, dtype=wider), torch.zeros_like(beta, dtype=wider)
        for x_i, g_i, dx_i in pieces(x, g, dx):
            z = (x_i - beta.to(x.dtype)).div_(alpha.to(x.dtype))
            if x.dtype == torch.float16:
                # Division by a tiny alpha may overflow; beyond the largest number z only says "far outside".
                z.clamp_(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
            dx_i.copy_(ctx.estimator.gradient(z, g_i))
            dbeta += g_i.sum(dtype=wider) - dx_i.sum(dtype=wider)
            gz = z * dx_i
            dalpha += sign_(z).mul_(g_i).sub_(gz).sum(dtype=wider)
        return dx, dalpha.to(alpha.dtype), dbeta.to(beta.dtype), None


class AdaptiveInput(Pure):
    """beta + alpha sign(x - beta) with one learned alpha and one learned beta per layer.

    form="paper":  beta + alpha sign((x - beta) / alpha)
    form="code":   alpha (beta + sign((x - beta) / alpha)), as in the authors' code and checkpoints
    The two agree at the start (alpha = 1, beta = 0).

    alpha acts through max(|alpha|, 1e-4), so that training cannot make it zero or negative; below that limit
    the gradient still passes, so that it can grow again. Shapes: any -> same.

    Source: the paper's gradient-based optimization of the activation set.
    """

    # Smallest scale that alpha can act as.
    FLOOR = 1e-4

    def __init__(self, estimator: Estimator | None = None, form: Literal["paper", "code"] = "paper") -> None:
        super().__init__()
        self.estimator = ApproxSign() if estimator is None else estimator
        self.form = form
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set beta to the mean and alpha to the deviation of x."""
        x = wide(x)
        deviation, mean = torch.std_mean(x, correction=0)
        alpha = deviation.clamp_min(self.FLOOR)
        self.alpha.copy_(alpha)
        self.beta.copy_(mean)

    def scale(self) -> Tensor:
        """alpha as it acts: max(|alpha|, 1e-4)."""
        alpha: Tensor = _Guarded.apply(self.alpha, self.FLOOR)
        return alpha

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.scale()
        out: Tensor = _AdaptiveInput.apply(x, alpha, self.beta, self.estimator)
        if self.form == "paper":
            return out
        # alpha (beta + s) lies beta (alpha - 1) above beta + alpha s.
        return out + (self.beta * (alpha - 1)).to(x.dtype)

    def input_levels(self) -> Levels | None:
        if type(self) is not AdaptiveInput:
            return None
        radius, threshold = _guarded(self.alpha.detach(), self.FLOOR), self.beta.detach()
        return Levels(threshold, radius, threshold if self.form == "paper" else radius * threshold)

    def extra_repr(self) -> str:
        return f"form={self.form!r}"


def _guarded(alpha: Tensor, floor: float) -> Tensor:
    return alpha.abs().clamp_min_(floor)


class _Guarded(torch.autograd.Function):
    """max(|alpha|, floor) forward; the derivative of |alpha| backward, also below the floor, and +1 at 0."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(alpha)
        return _guarded(alpha, floor)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        return g * sign(alpha), None


# With slopes above this an output that is not 0 tells its input to a few ulp.
SMALLEST_SLOPE = 1e-3


class _Maxout(torch.autograd.Function):
    """pos max(x, 0) + neg min(x, 0); keeps x, or the output, and the two vectors. At x = 0 all gradients are 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pos: Tensor, neg: Tensor, channel_dim: int) -> Tensor:
        ctx.channel_dim = channel_dim
        native = elementwise.bend(x, elementwise.plane_rows(x, channel_dim), pos, neg)
        if native is not None:
            # Where both slopes are positive, the output tells the input, and the layer behind keeps that anyway.
            ctx.of_output = bool(torch.minimum(pos, neg).amin() >= SMALLEST_SLOPE)
            ctx.save_for_backward(native if ctx.of_output else x, pos, neg)
            return native
        ctx.of_output = False
        ctx.save_for_backward(x, pos, neg)
        a, b = per_channel(pos, x, channel_dim), per_channel(neg, x, channel_dim)
        out = torch.empty_like(x)
        for at in index_blocks(x):
            out[at] = x[at].clamp_min(0).mul_(a).addcmul_(x[at].clamp_max(0), b)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, pos, neg = ctx.saved_tensors
        dim = ctx.channel_dim
        if not g.is_contiguous() and x.is_contiguous():
            g = g.contiguous()
        native = elementwise.unbend(x, g, elementwise.plane_rows(x, dim), pos, neg, negative_at_zero=False)
        if native is not None:
            sums = native[1][:2]
            if ctx.of_output:
                sums = sums / torch.stack([pos, neg])
            return native[0], sums[0].to(pos.dtype), sums[1].to(neg.dtype), None
        if ctx.of_output:
            x = x / torch.where(x > 0, per_channel(pos, x, dim), per_channel(neg, x, dim))
        a, b = per_channel(pos, x, dim), per_channel(neg, x, dim)
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            upper, lower = g * (x > 0), g * (x < 0)
            dpos, dneg = channel_sum(upper * x, dim), channel_sum(lower * x, dim)
            return upper * a + lower * b, dpos.to(pos.dtype), dneg.to(neg.dtype), None
        dx = torch.empty_like(x)
        wider = torch.promote_types(x.dtype, torch.float32)
        dpos, dneg = torch.zeros_like(pos, dtype=wider), torch.zeros_like(neg, dtype=wider)
        for at in index_blocks(x):
            # g where x > 0, and g where x < 0.
            upper = torch.ops.aten.threshold_backward(g[at], x[at], 0)
            lower = torch.ops.aten.threshold_backward(g[at], -x[at], 0)
            dpos += channel_sum(upper * x[at], dim)
            dneg += channel_sum(lower * x[at], dim)
            dx[at] = upper.mul_(a).addcmul_(lower, b)
        return dx, dpos.to(pos.dtype), dneg.to(neg.dtype), None


class Maxout(Nonlinearity):
    """pos max(x, 0) - neg max(-x, 0), with pos and neg learned per channel.

    Starts at pos = 1, neg = 0.25. Shapes: (N, C, ...) -> same; channel_dim=-1 for (..., C).
    Source: the paper's Maxout; starting values from the authors' code.
    """

    def __init__(self, channels: int, channel_dim: int = 1, neg: float = 0.25, pos: float = 1.0) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.pos = nn.Parameter(torch.full((channels,), float(pos)))
        self.neg = nn.Parameter(torch.full((channels,), float(neg)))

    def forward(self, x: Tensor) -> Tensor:
        node = as_one_node(self, x)
        out: Tensor = _Maxout.apply(x, self.pos, self.neg, self.channel_dim) if node is None else node
        return out

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, positive=self.pos, negative=self.neg)

    def start_as_relu(self) -> bool:
        nn.init.ones_(self.pos)
        nn.init.zeros_(self.neg)
        return True

    def extra_repr(self) -> str:
        return f"{self.pos.numel()}, channel_dim={self.channel_dim}"
