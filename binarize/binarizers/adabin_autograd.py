"""How AdaBin's formulas are run: by a kernel in one pass over memory, else block by block, each formula in few steps.

The kernels are those of `kernels.elementwise`, which give None where they do not serve; blocks are those of `kernels.tiles`.
Gradients that are differentiated themselves (create_graph=True) are the formulas as they stand.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from binarize.binarizers.adabin_formulas import (
    bent,
    bent_gradients,
    filter_gradient,
    level_gradients,
    scale_at_least,
    two_values,
)
from binarize.binarizers.sign import Estimator, sign, sign_
from binarize.binarizers.statistics import EPS, channel_sum, filter_axes, filter_size, per_channel, wide
from binarize.kernels import elementwise
from binarize.kernels.tiles import index_blocks, pieces

__all__ = ["adaptive_input", "adaptive_weight", "guarded", "maxout", "mean_and_deviation"]

# With slopes above this an output that is not 0 tells its input to a few ulp.
SMALLEST_SLOPE = 1e-3


def mean_and_deviation(w: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(mean, biased deviation but at least 1e-8) per filter in float32 at least, all axes kept.

    Shapes: w (O, ...) -> (O, 1, ...) each.
    """
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


def adaptive_weight(
    w: Tensor, estimator: Estimator, axis: int, known: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """`two_values` about mean and deviation of each filter, those `known` or taken now, with `filter_gradient`.

    Shapes: w (O, ...) -> the same.
    """
    values: Tensor = _AdaptiveWeight.apply(w, estimator, axis, known)
    return values


class _AdaptiveWeight(torch.autograd.Function):
    """Keeps w and the two statistics alone."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, estimator: Estimator, axis: int, known: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        beta, alpha = mean_and_deviation(w, axis) if known is None else known
        ctx.save_for_backward(w, alpha, beta)
        ctx.estimator, ctx.axis = estimator, axis
        native = elementwise.split(w, elementwise.filter_rows(w, axis), beta, (beta - alpha, beta + alpha))
        if native is not None:
            return native
        out = torch.empty_like(w)
        for at in index_blocks(w, axis):
            out[at] = two_values(wide(w[at]), alpha[at], beta[at])
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        w, alpha, beta = ctx.saved_tensors
        rows, formula = elementwise.filter_rows(w, ctx.axis), ctx.estimator.formula()
        native = elementwise.estimate(w, g, rows, formula, centre=beta, radius=alpha, through_filter=True)
        if native is not None:
            return native[0], None, None, None
        axes = filter_axes(w, ctx.axis)
        if torch.is_grad_enabled():
            dw = filter_gradient(wide(w), wide(g), alpha, ctx.estimator, axes).to(w.dtype)
            return dw, None, None, None
        dw = torch.empty_like(w)
        for at in index_blocks(w, ctx.axis):
            dw[at] = _filter_gradient(wide(w[at]), wide(g[at]), alpha[at], beta[at], ctx.estimator, axes)
        return dw, None, None, None


def _filter_gradient(
    w: Tensor, g: Tensor, alpha: Tensor, beta: Tensor, estimator: Estimator, axes: tuple[int, ...]
) -> Tensor:
    """`filter_gradient` in few passes over a block."""
    n = math.prod([w.shape[axis] for axis in axes])
    u = (w - beta).div_(alpha)
    gh = estimator.gradient(u, g)
    shift = (g.sum(axes, keepdim=True) - gh.sum(axes, keepdim=True)) / n
    stretch = sign(u).mul_(g).addcmul_(gh, u, value=-1).sum(axes, keepdim=True)
    moves = (alpha > EPS).to(alpha.dtype) / n
    return u.mul_(stretch * moves).add_(gh).add_(shift)


def adaptive_input(x: Tensor, alpha: Tensor, beta: Tensor, estimator: Estimator) -> Tensor:
    """`two_values` with the gradients `level_gradients`. Shapes: x any; alpha, beta (1,)."""
    values: Tensor = _AdaptiveInput.apply(x, alpha, beta, estimator)
    return values


class _AdaptiveInput(torch.autograd.Function):
    """Keeps x and the two numbers."""

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
            out_i.copy_(two_values(x_i, alpha, beta))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, alpha, beta = ctx.saved_tensors
        rows, formula = elementwise.whole(x), ctx.estimator.formula()
        native = elementwise.estimate(x, g, rows, formula, centre=beta, radius=alpha, wants_sums=True)
        if native is not None and native[1] is not None:
            sum_g, sum_dx, dalpha, _ = native[1].sum(0)
            dx, dbeta = native[0], sum_g - sum_dx
        else:
            run = level_gradients if torch.is_grad_enabled() else _level_gradients
            dx, dalpha, dbeta = run(x, g, alpha.to(x.dtype), beta.to(x.dtype), ctx.estimator)
        return dx, dalpha.to(alpha.dtype).view_as(alpha), dbeta.to(beta.dtype).view_as(beta), None


def _level_gradients(
    x: Tensor, g: Tensor, alpha: Tensor, beta: Tensor, estimator: Estimator
) -> tuple[Tensor, Tensor, Tensor]:
    """`level_gradients`, piece by piece in few passes."""
    wider = torch.promote_types(x.dtype, torch.float32)
    dx = torch.empty_like(x)
    dalpha, dbeta = torch.zeros_like(alpha, dtype=wider), torch.zeros_like(beta, dtype=wider)
    for x_i, g_i, dx_i in pieces(x, g, dx):
        z = (x_i - beta).div_(alpha)
        if x.dtype == torch.float16:
            # Division by a tiny alpha may overflow; beyond the largest number z only says "far outside".
            z.clamp_(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
        dx_i.copy_(estimator.gradient(z, g_i))
        dbeta += g_i.sum(dtype=wider) - dx_i.sum(dtype=wider)
        gz = z * dx_i
        dalpha += sign_(z).mul_(g_i).sub_(gz).sum(dtype=wider)
    return dx, dalpha, dbeta


def guarded(alpha: Tensor, floor: float) -> Tensor:
    """`scale_at_least` with the derivative of |alpha|, also below the floor, and +1 at 0. Shapes: any -> the same."""
    scale: Tensor = _Guarded.apply(alpha, floor)
    return scale


class _Guarded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(alpha)
        return scale_at_least(alpha, floor)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (alpha,) = ctx.saved_tensors
        return g * sign(alpha), None


def maxout(x: Tensor, pos: Tensor, neg: Tensor, channel_dim: int) -> Tensor:
    """`bent` with the gradients `bent_gradients`. Shapes: x (N, C, ...), or (..., C); pos, neg (C,)."""
    out: Tensor = _Maxout.apply(x, pos, neg, channel_dim)
    return out


class _Maxout(torch.autograd.Function):
    """Keeps x, or the output, and the two vectors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pos: Tensor, neg: Tensor, channel_dim: int) -> Tensor:
        ctx.channel_dim, ctx.of_output = channel_dim, False
        native = elementwise.bend(x, elementwise.plane_rows(x, channel_dim), pos, neg)
        if native is not None:
            # Where both slopes are positive, the output tells the input, and the layer behind keeps that anyway.
            ctx.of_output = bool(torch.minimum(pos, neg).amin() >= SMALLEST_SLOPE)
            ctx.save_for_backward(native if ctx.of_output else x, pos, neg)
            return native
        ctx.save_for_backward(x, pos, neg)
        a, b = per_channel(pos, x, channel_dim), per_channel(neg, x, channel_dim)
        out = torch.empty_like(x)
        for at in index_blocks(x):
            out[at] = bent(x[at], a, b)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        kept, pos, neg = ctx.saved_tensors
        dim = ctx.channel_dim
        if not g.is_contiguous() and kept.is_contiguous():
            g = g.contiguous()
        native = elementwise.unbend(
            kept, g, elementwise.plane_rows(kept, dim), pos, neg, negative_at_zero=False
        )
        if native is not None:
            dx, sums = native[0], native[1][:2]
            # Sums of g times the output are those of g times the input, slope by slope.
            dpos, dneg = sums / torch.stack([pos, neg]) if ctx.of_output else sums
        else:
            a, b = per_channel(pos, kept, dim), per_channel(neg, kept, dim)
            x = kept / torch.where(kept > 0, a, b) if ctx.of_output else kept
            run = bent_gradients if torch.is_grad_enabled() else _bent_gradients
            dx, dpos, dneg = run(x, g, a, b, dim)
        return dx, dpos.to(pos.dtype), dneg.to(neg.dtype), None


def _bent_gradients(
    x: Tensor, g: Tensor, pos: Tensor, neg: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`bent_gradients`, block by block in few passes."""
    dx = torch.empty_like(x)
    dpos, dneg = (
        torch.zeros(x.shape[dim], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for _ in range(2)
    )
    for at in index_blocks(x):
        # g where x > 0, and g where x < 0.
        upper = torch.ops.aten.threshold_backward(g[at], x[at], 0)
        lower = torch.ops.aten.threshold_backward(g[at], -x[at], 0)
        dpos += channel_sum(upper * x[at], dim)
        dneg += channel_sum(lower * x[at], dim)
        dx[at] = upper.mul_(pos).addcmul_(lower, neg)
    return dx, dpos, dneg
