"""Sums of independent ±1 by their whole mass functions, and the leave-one-out masses that gradients are made of.

S is the number of +1 among N values with probabilities V_j, so Z = 2 S - N. sign(0) = +1: P(Z >= 0) = P(S >= s0) with
s0 = ceil(N / 2), and dP / dV_j = P(S without j = s0 - 1).

Without j, the mass function x solves the system y_s = (1 - V) x_s + V x_(s-1) of N + 1 equations with N unknowns:

    exact      recursion, from below and from above at once: each of the two is stable on its side of V = 1/2
    thomas     the normal equations, which are tridiagonal: diagonal p^2 + q^2, beside it p q, by Thomas' algorithm
    central3   three rows of these around s0 - 1, with 0 for the unknowns outside; central5 five rows
    clt        the normal density, without a mass function

`central3` and `central5` are biased where V is near 1/2; they are here for comparison with published results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.errors import UsageError, did_you_mean

__all__ = ["LEAVE_ONE_OUT", "least_positives", "leave_one_out", "mass_function"]

# Variances below are taken as this in the normal density: a leave-one-out sum may be certain.
_LEAST_VARIANCE = 0.05


def least_positives(count: int) -> int:
    """s0: with so many +1 of `count` values their sum is at least 0."""
    return (count + 1) // 2


def mass_function(v: Tensor) -> Tensor:
    """P(S = s) for s = 0..N. Shapes: probabilities (..., N) -> (..., N + 1)."""
    y = torch.zeros(*v.shape[:-1], v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    y[..., 0] = 1
    for j in range(v.shape[-1]):
        q = v[..., j : j + 1]
        # Only the first j + 1 entries are not 0.
        moved = y[..., : j + 1] * q
        y[..., : j + 1] *= 1 - q
        y[..., 1 : j + 2] += moved
    return y


def leave_one_out(v: Tensor, mode: str = "exact", s0: int | None = None) -> Tensor:
    """P(S without j = s0 - 1) for every j, by one of the ways above. Shapes: (..., N) -> the same.

    Raises: UsageError for an unknown mode.
    """
    if mode not in LEAVE_ONE_OUT:
        known = ", ".join(LEAVE_ONE_OUT)
        raise UsageError(f"no gradient {mode!r} (known are {known}){did_you_mean(mode, LEAVE_ONE_OUT)}")
    s0 = least_positives(v.shape[-1]) if s0 is None else s0
    if mode != "clt" and not 1 <= s0 <= v.shape[-1]:
        return torch.zeros_like(v)
    return LEAVE_ONE_OUT[mode](v, s0)


def _recursion(v: Tensor, s0: int) -> Tensor:
    y, p = mass_function(v), 1 - v
    lower = v <= 0.5
    # Each is computed with numbers of its own side alone; the other side's are replaced by harmless ones.
    p_low, q_low = torch.where(lower, p, 1), torch.where(lower, v, 0)
    below = torch.zeros_like(v)
    for s in range(s0):
        below = (y[..., s : s + 1] - q_low * below) / p_low
    p_high, q_high = torch.where(lower, 0, p), torch.where(lower, 1, v)
    above = torch.zeros_like(v)
    for s in range(v.shape[-1], s0 - 1, -1):
        above = (y[..., s : s + 1] - p_high * above) / q_high
    return torch.where(lower, below, above)


def _thomas(v: Tensor, s0: int) -> Tensor:
    y, p, n = mass_function(v), 1 - v, v.shape[-1]
    wanted = s0 - 1
    diagonal, beside = p.square() + v.square(), p * v
    alpha = beta = torch.zeros_like(v)
    alphas, betas = [], []
    for s in range(n):
        right = p * y[..., s : s + 1] + v * y[..., s + 1 : s + 2]
        pivot = diagonal + beside * alpha
        alpha, beta = -beside / pivot, (right - beside * beta) / pivot
        # The way back needs only the rows behind the wanted one.
        if s >= wanted:
            alphas.append(alpha)
            betas.append(beta)
    x = betas.pop()
    alphas.pop()
    while betas:
        x = alphas.pop() * x + betas.pop()
    return x


def _central(width: int) -> Callable[[Tensor, int], Tensor]:
    side = width // 2

    def solve(v: Tensor, s0: int) -> Tensor:
        p = 1 - v
        # Beyond the ends of the mass function are zeros.
        y = F.pad(mass_function(v), (side + 1, side + 1))
        first = s0 - 1 - side + side + 1
        rights = [p * y[..., s : s + 1] + v * y[..., s + 1 : s + 2] for s in range(first, first + width)]
        diagonal, beside = p.square() + v.square(), p * v
        # The system is symmetric: eliminate from both ends towards the middle row.
        pivot, down, up = diagonal, rights[0], rights[-1]
        for step in range(1, side):
            factor = beside / pivot
            pivot = diagonal - factor * beside
            down, up = rights[step] - factor * down, rights[-1 - step] - factor * up
        factor = beside / pivot
        return (rights[side] - factor * (down + up)) / (diagonal - 2 * factor * beside)

    return solve


def _normal(v: Tensor, s0: int) -> Tensor:
    own = v * (1 - v)
    mean = v.sum(-1, keepdim=True) - v
    spread = (own.sum(-1, keepdim=True) - own).clamp_min(_LEAST_VARIANCE).sqrt()
    z = (s0 - 1 - mean) / spread
    return torch.exp(-z.square() / 2) / (spread * (2 * torch.pi) ** 0.5)


LEAVE_ONE_OUT: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "exact": _recursion,
    "thomas": _thomas,
    "central3": _central(3),
    "central5": _central(5),
    "clt": _normal,
}
