"""P(Z >= 0) of a sum of independent ±1 from its moments: the central limit and its next terms.

    mu = sum a_j,  var = sum (1 - a_j^2),  a_j = m_j theta_j      the product of an input's and a weight's mean
    clt     Phi((mu - cut) / sqrt(var - 1/3))
    edge4   the Edgeworth series with kappa_3 and kappa_4 of the smooth law

Z lies on a lattice of step 2, and `cut` is the middle between two of its points. The lattice law is a smooth law rounded
to the lattice, whose variance is larger by 2^2 / 12 = 1/3 and whose kappa_4 is smaller by 2^4 / 120 = 2/15. All moments
are products of powers of the means, so that a convolution gives them as well as a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Moments", "clt", "edge4", "middle", "moments_of", "spread_of"]

# A sum of one value that is nearly certain has no variance left; the series diverges long before.
_LEAST_VARIANCE = 0.05
_SERIES_FROM = 2.0

# (powers of the input's means, powers of the weight's means) -> their product, linear or convolution.
Product = Callable[[Tensor, Tensor], Tensor]


class Moments(tuple[Tensor, ...]):
    """Sums of a, a^2 and, for `edge4`, a^3 and a^4, over the terms of each output."""


def middle(count: int) -> int:
    """The middle between the sums that are below 0 and the others: -1 for an even number of terms, else 0."""
    return 0 if count % 2 else -1


def moments_of(x: Tensor, theta: Tensor, product: Product, orders: int) -> Moments:
    """Sums of the powers 1..orders of a = x theta, each by one product."""
    sums, x_power, theta_power = [], x, theta
    for order in range(orders):
        if order:
            x_power, theta_power = x_power * x, theta_power * theta
        sums.append(product(x_power, theta_power))
    return Moments(sums)


def clt(moments: Moments, count: int, cut: Tensor | float) -> Tensor:
    """The central limit with the lattice's correction, an output's probability of +1. Shapes: as the moments."""
    spread = spread_of(moments[1], count)
    return torch.special.ndtr((moments[0] - cut) / spread)


def edge4(moments: Moments, count: int, cut: Tensor | float) -> Tensor:
    """The Edgeworth series to kappa_4. Shapes: as the moments."""
    mean, squares, cubes, fourths = moments
    spread = spread_of(moments[1], count)
    z = (mean - cut) / spread
    skew = (2 * cubes - 2 * mean) / spread**3
    excess = (8 * squares - 2 * count - 6 * fourths + 2 / 15) / spread**4
    z2 = z * z
    terms = (
        skew / 6 * (1 - z2) + excess / 24 * z * (z2 - 3) + skew.square() / 72 * z * (z2 * z2 - 10 * z2 + 15)
    )
    terms = torch.where(count - squares > _SERIES_FROM, terms, 0)
    density = torch.exp(-z2 / 2) / math.sqrt(2 * math.pi)
    return (torch.special.ndtr(z) - density * terms).clamp(0, 1)


def spread_of(squares: Tensor, count: int) -> Tensor:
    """The deviation of the smooth law, from the sums of a^2."""
    return (count - squares - 1 / 3).clamp_min(_LEAST_VARIANCE).sqrt()
