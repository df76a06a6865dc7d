"""IR-Net: weights balanced before the sign, and an estimator that sharpens during training.

Qin, Gong, Liu, Shen, Wei, Yu, Song, Forward and Backward Information Retention for Accurate Binary Neural
Networks, CVPR 2020, https://arxiv.org/abs/1909.10788
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator, WeightBinarizer, sign_
from binarize.binarizers.statistics import (
    EPS,
    filter_axes,
    filter_size,
    mean_and_variance,
    smallest_divisor,
    wide,
)
from binarize.kernels.elementwise import Formula
from binarize.kernels.tiles import index_blocks
from binarize.kernels.tracing import is_recorded

__all__ = ["Ede", "LibraWeight", "StandardizedSign"]


class Ede(Estimator):
    """sign(x), with the gradient k t (1 - tanh(t x)^2).

    t grows and k = max(1 / t, 1) falls during training: first almost the identity, at the end almost the
    derivative of the sign. A schedule writes both buffers; without one they stay where the authors' code has
    them.

    Source: the paper's error decay estimator.
    """

    t: Tensor
    k: Tensor

    def __init__(self, t: float = 0.1, k: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("t", torch.tensor(float(t)))
        self.register_buffer("k", torch.tensor(float(k)))

    def derivative(self, x: Tensor) -> Tensor:
        t, k = self.t.to(x.dtype), self.k.to(x.dtype)
        return (x * t).tanh_().square().neg_().add_(1).mul_(k * t)

    def formula(self) -> Formula | None:
        # Numbers cannot be read while a graph is recorded, which has no kernels anyway.
        if type(self) is not Ede or not self.t.is_cpu or is_recorded():
            return None
        return Formula.decay(float(self.t), float(self.k))


class StandardizedSign(torch.autograd.Function):
    """sign((w - mean) / r) per filter with r = sqrt(var + eps), var divided by n - 1.

    The gradient runs through both statistics. With u = (w - mean) / r, h = h(u) and n weights in a filter:

        v = g h,   dw = (v - mean(v) - u sum(v u) / (n - 1)) / r

    Keeps w, the mean and r. A filter without spread (r < 1e-8) is divided by 1 instead.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, estimator: Estimator, axis: int, eps: float) -> Tensor:
        mean, r = standardization(w, axis, eps)
        ctx.save_for_backward(w, mean, r)
        ctx.estimator, ctx.axis, ctx.eps = estimator, axis, eps
        out = torch.empty_like(w)
        for at in index_blocks(w, axis):
            out[at] = sign_(wide(w[at]) - mean[at])
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        w, mean, r = ctx.saved_tensors
        axes, n = filter_axes(w, ctx.axis), filter_size(w, ctx.axis)
        if torch.is_grad_enabled():  # asked for with create_graph=True: mean and deviation follow w
            mean = wide(w).mean(axes, keepdim=True)
            spread = (wide(w) - mean).square().sum(axes, keepdim=True) / max(n - 1, 1)
            root = (spread + ctx.eps).clamp_min(EPS * EPS).sqrt()
            r = torch.where(r == 1.0, r, root)
            u = (wide(w) - mean) / r
            v = ctx.estimator.gradient(u, wide(g))
            slope = (v * u).sum(axes, keepdim=True) / max(n - 1, 1)
            return ((v - v.mean(axes, keepdim=True) - u * slope) / r).to(w.dtype), None, None, None
        dw = torch.empty_like(w)
        for at in index_blocks(w, ctx.axis):
            u = (wide(w[at]) - mean[at]).div_(r[at])
            v = ctx.estimator.gradient(u, wide(g[at]))
            slope = (v * u).sum(axes, keepdim=True).div_(max(n - 1, 1))
            dw[at] = (v - v.mean(axes, keepdim=True)).sub_(u.mul_(slope)).div_(r[at])
        return dw, None, None, None


def standardization(w: Tensor, axis: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and sqrt(var + eps) per filter, in float32 at least; 1 in place of a root below 1e-8."""
    mean, variance = mean_and_variance(w, axis, correction=1)
    root = variance.add_(eps).sqrt_()
    return mean, torch.where(root < EPS, 1.0, root)


class LibraWeight(WeightBinarizer):
    """2^e sign(u) with u the standardized weights of a filter and e = round(log2(mean |u|)).

    The scale is a shift of bits and constant in the backward pass; u carries the gradient through mean and
    deviation.

    Source: the paper's Libra parameter binarization; unbiased deviation as in the authors' code.
    """

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = Ede() if estimator is None else estimator
        self.axis = axis

    @torch.no_grad()
    def shift(self, w: Tensor) -> Tensor:
        """2^e per filter, in the type of w. Shapes: u (O, ...) -> (O, 1, ...)."""
        mean, r = standardization(w, self.axis, eps=0.0)
        size = (wide(w) - mean).abs_().mean(filter_axes(w, self.axis), keepdim=True).div_(r)
        return size.clamp_min_(smallest_divisor(w.dtype)).log2_().round_().exp2_().to(w.dtype)

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(u), 2^e). Shapes: w (O, ...) -> the same, (O, 1, ...)."""
        values: Tensor = StandardizedSign.apply(w, self.estimator, self.axis, 0.0)
        return values, self.shift(w)
