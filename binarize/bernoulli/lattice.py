"""P(Z >= 0) of a sum of independent ±1, exactly, by its characteristic function on the lattice.

    phi(w) = prod_j (cos w + i a_j sin w),  a_j = m_j theta_j,  w_k = (k + 1/2) pi / 2K
    P(Z > cut)   = 1/2 + 1/2K sum_k Im(phi(w_k) e^(-i w_k cut)) / sin w_k
    dP / da_j    = 1/2K sum_k Re(phi(w_k) e^(-i w_k cut) / (cos w_k + i a_j sin w_k))
    dP / dcut    = -1/2K sum_k Re(phi(w_k) e^(-i w_k cut)) cos w_k

The gradient is the product divided by its own factor; no factor is 0 at these nodes. The last line is half the mean of
the masses on both sides of the cut, by which P falls from one point of the lattice to the next, two apart.

The sum is that of all points 4K apart, so K grows with the distance of the cut from the mean and with the deviation.
|phi|^2 <= exp(-var sin^2 w), so that of K nodes only the first ones count. All of it is in float64: in float32, roundings
of cos w have the same sign in every factor.

Source: Gil-Pelaez, Note on the inversion theorem, Biometrika 38, 1951, https://doi.org/10.1093/biomet/38.3-4.481
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Nodes", "gradients", "nodes_of", "probabilities"]

# What is left out: tails beyond so many deviations and values more, and |phi| below e^(-5.8^2 / 2) = 5e-8. Sums of few
# uncertain terms have longer tails than normal ones.
_DEVIATIONS, _VALUES, _DECAY = 7.0, 14.0, 5.8
# Numbers of complex pairs that one piece of the work may hold.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Nodes:
    """How each output is computed: K, the nodes that count, and whether it is certain. Shapes: (B, M)."""

    # 4K is the period; 0 where the cut is so far away that the output is certain.
    steps: Tensor
    used: Tensor


def nodes_of(mean: Tensor, variance: Tensor, count: int, cut: Tensor | float) -> Nodes:
    """The nodes of sums with these moments. Shapes: (B, M) each; the cut broadcasts to them."""
    deviation = variance.double().clamp_min(0).sqrt()
    distance = (mean.double() - cut).abs()
    reach = _DEVIATIONS * deviation + _VALUES
    steps = ((distance + reach) / 2).ceil().clamp(max=count // 2 + 1)
    widest = torch.asin((_DECAY / deviation.clamp_min(1e-9)).clamp(max=1))
    used = torch.minimum((widest * steps * 2 / math.pi + 0.5).ceil(), steps)
    steps = torch.where(distance > reach, 0, steps)
    return Nodes(steps.int(), used.int())


def probabilities(x: Tensor, theta: Tensor, cut: Tensor, nodes: Nodes) -> Tensor:
    """P(Z > cut), 0.5 where `nodes.steps` is 0. Shapes: x (B, N), theta (M, N), cut (M,) float64 -> (B, M) float64."""
    result = torch.full(nodes.steps.shape, 0.5, dtype=torch.float64, device=x.device)
    for piece in _pieces(x, theta, cut, nodes):
        result[piece.rows, piece.columns] += (piece.phi[1] * piece.weight / piece.sine).sum(1)
    return result


def gradients(
    x: Tensor, theta: Tensor, cut: Tensor, nodes: Nodes, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients at x, theta and the cut, of g at the probabilities. Shapes: g (B, M) -> as x, theta and cut."""
    dx, dtheta = (torch.zeros_like(one.t(), dtype=torch.float64) for one in (x, theta))
    dcut = torch.zeros_like(cut, dtype=torch.float64)
    for piece in _pieces(x, theta, cut, nodes):
        rows, columns = piece.rows, piece.columns
        own = g[rows, columns].double()[:, None] * piece.weight
        real, imaginary = piece.phi[0] * own, piece.phi[1] * own
        dcut.index_add_(0, columns, -(real * piece.cosine).sum(1))
        real, imaginary = real * piece.cosine, imaginary * piece.sine
        squares = piece.cosine.square(), piece.sine.square()
        for j, (x_j, theta_j) in enumerate(zip(piece.x, piece.theta)):
            a = (x_j * theta_j)[:, None]
            d = ((real + a * imaginary) / (squares[0] + a.square() * squares[1])).sum(1)
            dx[j].index_add_(0, rows, d * theta_j)
            dtheta[j].index_add_(0, columns, d * x_j)
    return dx.t().to(x.dtype), dtheta.t().to(theta.dtype), dcut.to(cut.dtype)


@dataclass(frozen=True)
class _Piece:
    """Some outputs: what they read, their nodes, and phi(w) e^(-i w cut) at these."""

    rows: Tensor
    columns: Tensor
    # (N, outputs)
    x: Tensor
    theta: Tensor
    # (outputs, nodes); the weight is 1/2K, and 0 at nodes that do not count.
    cosine: Tensor
    sine: Tensor
    weight: Tensor
    phi: tuple[Tensor, Tensor]


def _pieces(x: Tensor, theta: Tensor, cut: Tensor, nodes: Nodes) -> Iterator[_Piece]:
    """The outputs that are not certain, so many at once that memory stays small."""
    x, theta = x.double().t(), theta.double().t()
    rows, columns = nodes.steps.nonzero(as_tuple=True)
    most = int(nodes.used.max()) if len(rows) else 1
    size = max(1, _PIECE // max(most, len(x)))
    for first in range(0, len(rows), size):
        yield _piece(x, theta, cut.double(), nodes, rows[first : first + size], columns[first : first + size])


def _piece(x: Tensor, theta: Tensor, cut: Tensor, nodes: Nodes, rows: Tensor, columns: Tensor) -> _Piece:
    steps, used = nodes.steps[rows, columns].double()[:, None], nodes.used[rows, columns][:, None]
    k = torch.arange(int(used.max()), dtype=torch.float64, device=x.device)
    w = (k + 0.5) * math.pi / (2 * steps)
    weight = torch.where(k < used, 0.5 / steps, 0)
    cosine, sine = w.cos(), w.sin()
    turned = -w * cut[columns][:, None]
    real, imaginary = turned.cos(), turned.sin()
    x, theta = x[:, rows], theta[:, columns]
    for x_j, theta_j in zip(x, theta):
        a = (x_j * theta_j)[:, None] * sine
        real, imaginary = real * cosine - imaginary * a, imaginary * cosine + real * a
    return _Piece(rows, columns, x, theta, cosine, sine, weight, (real, imaginary))
