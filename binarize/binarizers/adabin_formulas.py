"""AdaBin's formulas and their gradients, each one function of plain torch; adabin_autograd.py says how they are run.

The gradients write nothing over, so that they can be differentiated again. Sums are accumulated in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator, sign, sign_
from binarize.binarizers.statistics import EPS, channel_sum

__all__ = ["bent", "bent_gradients", "filter_gradient", "level_gradients", "scale_at_least", "two_values"]


def two_values(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """beta + alpha sign(x - beta). Shapes: beta and alpha broadcast against x -> like x."""
    return sign_(x - beta).mul_(alpha).add_(beta)


def filter_gradient(
    w: Tensor, g: Tensor, alpha: Tensor, estimator: Estimator, axes: tuple[int, ...]
) -> Tensor:
    """dw of `two_values` where beta is the mean of each filter and alpha its deviation, so that both follow w.

    With u = (w - beta) / alpha, s = sign(u), h = h(u) and n weights in a filter:

        dw_j = g_j h_j + mean_i(g_i (1 - h_i)) + u_j / n * sum_i g_i (s_i - h_i u_i)

    Where alpha is clamped to 1e-8 it does not follow w, and the last term is 0.
    Shapes: w, g float32 at least, filters with `axes` of weights each; alpha with those axes kept.
    """
    beta = w.mean(axes, keepdim=True)
    moves = alpha > EPS
    spread = (w - beta).square().mean(axes, keepdim=True).clamp_min(EPS * EPS).sqrt()
    u = (w - beta) / torch.where(moves, spread, alpha)
    gh = estimator.gradient(u, g)
    shift = (g - gh).mean(axes, keepdim=True)
    stretch = (sign(u) * g - gh * u).mean(axes, keepdim=True)
    return gh + shift + u * stretch * moves


def level_gradients(
    x: Tensor, g: Tensor, alpha: Tensor, beta: Tensor, estimator: Estimator
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dalpha, dbeta) of `two_values` with learned alpha and beta, one number each for all of x.

    With z = (x - beta) / alpha, s = sign(z), h = h(z):  dx = g h,  dalpha = sum g (s - h z),  dbeta = sum g (1 - h).

    Shapes: g and x alike -> like x, and two numbers.
    """
    wider = torch.promote_types(x.dtype, torch.float32)
    z = (x - beta) / alpha
    dx = estimator.gradient(z, g)
    dalpha = (sign(z) * g - z * dx).sum(dtype=wider)
    dbeta = g.sum(dtype=wider) - dx.sum(dtype=wider)
    return dx, dalpha, dbeta


def bent(x: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
    """pos max(x, 0) + neg min(x, 0). Shapes: pos and neg broadcast against x -> like x."""
    return x.clamp_min(0).mul_(pos).addcmul_(x.clamp_max(0), neg)


def bent_gradients(x: Tensor, g: Tensor, pos: Tensor, neg: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dpos, dneg) of `bent`; at x = 0 all are 0. The channels of x lie on the axis `dim`.

    dx = g pos where x > 0, g neg where x < 0;  dpos = sum of g x where x > 0;  dneg = sum of g x where x < 0.

    Shapes: g and x alike -> like x, (C,), (C,).
    """
    upper, lower = g * (x > 0), g * (x < 0)
    return upper * pos + lower * neg, channel_sum(upper * x, dim), channel_sum(lower * x, dim)


def scale_at_least(alpha: Tensor, floor: float) -> Tensor:
    """max(|alpha|, floor). Shapes: any -> the same."""
    return alpha.abs().clamp_min(floor)
