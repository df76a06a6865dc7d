"""P(Z > cut) of sums of independent ±1 by one way, and its gradient by the same or another.

    clt, edge4   from moments (moments.py); both are far off where little is left uncertain
    exact        on the lattice (lattice.py)
    auto         exact where the variance is below 25, else clt
    thomas, central3, central5   gradients alone, of whole mass functions (masses.py)

The gradient of every way is one autograd function over all outputs at once, and none of them asks on which side of 1/2 a
probability lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from binarize.bernoulli import lattice
from binarize.bernoulli.masses import leave_one_out
from binarize.bernoulli.moments import Moments, clt, edge4, middle, moments_of
from binarize.errors import UsageError, did_you_mean

__all__ = ["FORWARDS", "GRADIENTS", "check_ways", "nearest_cut", "probability_of_moments", "sign_probability"]

FORWARDS = ("auto", "clt", "edge4", "exact")
GRADIENTS = ("same", "exact", "clt", "edge4", "thomas", "central3", "central5")
# From this variance on the central limit is good to about 1e-3, whatever the terms are.
_NARROW = 25.0
# Numbers of the mass functions that are held at once.
_PIECE = 1 << 22

_SERIES: dict[str, tuple[int, Callable[[Moments, int, Any], Tensor]]] = {
    "clt": (2, clt),
    "edge4": (4, edge4),
}


def check_ways(forward: str, gradient: str) -> None:
    """Raises: UsageError, where one of the two is unknown."""
    for what, said, known in (("forward", forward, FORWARDS), ("gradient", gradient, GRADIENTS)):
        if said not in known:
            raise UsageError(
                f"no {what} {said!r} for sums of ±1 (known are {', '.join(known)}){did_you_mean(said, known)}"
            )


def sign_probability(
    x: Tensor,
    theta: Tensor,
    cut: Tensor | None = None,
    forward: str = "auto",
    gradient: str = "same",
) -> Tensor:
    """P(sum_j x_j w_j > cut), where x_j and w_j are ±1 with the given means.

    `cut` is one number an output; without it the sum is compared with 0, and sign(0) = +1. The lattice knows cuts in the
    middle between two sums alone: exact ways take the nearest one. Shapes: x (..., N), theta (M, N), cut (M,) -> (..., M).

    Example:
        >>> sign_probability(torch.zeros(1, 8), torch.zeros(1, 8), forward="exact")
        tensor([[0.6367]])

    Raises: UsageError for an unknown way.
    """
    check_ways(forward, gradient)
    if cut is None:
        cut = torch.full(theta.shape[:1], float(middle(x.shape[-1])), dtype=x.dtype, device=x.device)
    way = forward if gradient == "same" else gradient
    flat: Tensor = _Probability.apply(x.reshape(-1, x.shape[-1]), theta, cut, forward, way)
    return flat.reshape(*x.shape[:-1], len(theta))


def probability_of_moments(
    way: str, x: Tensor, theta: Tensor, product: Callable[[Tensor, Tensor], Tensor], count: int, cut: Tensor
) -> Tensor:
    """`clt` or `edge4` where x and theta meet in any product, such as a convolution. Shapes: as the product's."""
    orders, series = _SERIES[way]
    return series(moments_of(x, theta, product, orders), count, cut)


def nearest_cut(cut: Tensor, count: int) -> Tensor:
    """The middle between two neighbouring sums of so many terms that is nearest to each cut."""
    return 2 * ((cut - middle(count)) / 2).round() + middle(count)


class _Probability(torch.autograd.Function):
    """Shapes: x (B, N), theta (M, N), cut (M,) -> (B, M)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, cut: Tensor, forward: str, gradient: str) -> Tensor:
        ctx.save_for_backward(x, theta, cut)
        ctx.gradient = gradient
        if forward in _SERIES:
            return probability_of_moments(forward, x, theta, F.linear, x.shape[1], cut)
        mean, squares = moments_of(x, theta, F.linear, 2)
        nodes, middles, narrow = _on_lattice(x, mean, squares, cut, forward)
        certain = mean > middles
        wide = certain.to(x.dtype)
        if forward == "auto":
            wide = torch.where(narrow, wide, clt(Moments((mean, squares)), x.shape[1], cut))
        return torch.where(nodes.steps > 0, _exact(x, theta, middles, nodes).to(x.dtype), wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, theta, cut = ctx.saved_tensors
        (g,) = gradients
        way: str = ctx.gradient
        if way in _SERIES:
            return *_series_gradients(way, x, theta, cut, g), None, None
        if way not in ("exact", "auto"):
            return *_mass_gradients(way, x, theta, cut, g), None, None
        mean, squares = moments_of(x, theta, F.linear, 2)
        nodes, middles, narrow = _on_lattice(x, mean, squares, cut, way)
        found = _exact_gradients(x, theta, middles, nodes, g)
        if way == "auto" and not bool(narrow.all()):
            wide = _series_gradients("clt", x, theta, cut, torch.where(narrow, 0, g))
            found = tuple(one + other for one, other in zip(found, wide))
        return *found, None, None


def _on_lattice(
    x: Tensor, mean: Tensor, squares: Tensor, cut: Tensor, way: str
) -> tuple[lattice.Nodes, Tensor, Tensor]:
    """(the nodes of the outputs that are computed exactly, the cuts they are compared with, which outputs these are)."""
    count = x.shape[1]
    variance, middles = count - squares, nearest_cut(cut.double(), count)
    nodes = lattice.nodes_of(mean, variance, count, middles)
    narrow = torch.ones_like(mean, dtype=torch.bool) if way == "exact" else variance < _NARROW
    return lattice.Nodes(torch.where(narrow, nodes.steps, 0), nodes.used), middles, narrow


def _exact(x: Tensor, theta: Tensor, cut: Tensor, nodes: lattice.Nodes) -> Tensor:
    return lattice.probabilities(x, theta, cut, nodes)


def _exact_gradients(
    x: Tensor, theta: Tensor, cut: Tensor, nodes: lattice.Nodes, g: Tensor
) -> tuple[Tensor, ...]:
    dx, dtheta, dcut = lattice.gradients(x, theta, cut, nodes, g)
    return dx, dtheta, dcut.to(g.dtype)


def _series_gradients(way: str, x: Tensor, theta: Tensor, cut: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        inputs = [one.detach().requires_grad_() for one in (x, theta, cut)]
        p = probability_of_moments(way, inputs[0], inputs[1], F.linear, x.shape[1], inputs[2])
        return torch.autograd.grad(p, inputs, g)


def _mass_gradients(way: str, x: Tensor, theta: Tensor, cut: Tensor, g: Tensor) -> tuple[Tensor, ...]:
    """From the leave-one-out masses of all outputs, some samples at a time; the cut's from their mean."""
    count = x.shape[1]
    dx, dtheta, dcut = torch.zeros_like(x), torch.zeros_like(theta), torch.zeros_like(cut)
    positives = ((nearest_cut(cut, count) + 1 + count) / 2).long()
    size = max(1, _PIECE // max(1, theta.numel()))
    for s0 in positives.unique().tolist():
        own = (positives == s0).nonzero().squeeze(1)
        weights = theta[own]
        for first in range(0, len(x), size):
            values, upstream = x[first : first + size], g[first : first + size, own, None] / 2
            a = values[:, None] * weights
            d = leave_one_out((1 + a) / 2, way, s0) * upstream
            dx[first : first + size] += (d * weights).sum(1)
            dtheta[own] += (d * values[:, None]).sum(0)
            dcut[own] -= d.mean(-1).sum(0)
    return dx, dtheta, dcut
