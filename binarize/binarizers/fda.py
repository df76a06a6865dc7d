"""FDA-BNN: the derivative of a truncated Fourier series of the sign, without the noise adaptation module.

Xu, Han, Xu, Wang, Chen, Xu, Wang, Learning Frequency Domain Approximation for Binary Neural Networks, NeurIPS
2021, https://arxiv.org/abs/2103.00841
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator
from binarize.binarizers.statistics import wide

__all__ = ["FourierSign"]


class FourierSign(Estimator):
    """sign(x), with the gradient 4 omega / pi sum_{i = 0..n} cos((2 i + 1) omega x).

    n grows from 9 to 18 during training; a schedule writes the buffer. The sum is computed in closed form,
    sin(2 (n + 1) omega x) / (2 sin(omega x)), whose limit at 0 is n + 1. clip: 0 beyond |x| = clip, as some
    re-implementations do.

    Source: the paper's Fourier approximation; omega = 0.1 from later implementations.
    """

    n: Tensor

    def __init__(self, n: int = 9, omega: float = 0.1, clip: float | None = None) -> None:
        super().__init__()
        self.omega = float(omega)
        self.clip = None if clip is None else float(clip)
        self.register_buffer("n", torch.tensor(float(n)))

    def derivative(self, x: Tensor) -> Tensor:
        angle = wide(x) * self.omega
        terms = self.n.to(angle.dtype) + 1
        below = angle.sin()
        ratio = (2 * terms * angle).sin_().div_(2 * below)
        total = torch.where(below == 0, terms, ratio).clamp_(-terms, terms)
        h = total.mul_(4 * self.omega / math.pi)
        if self.clip is not None:
            h = h.mul_(x.abs() <= self.clip)
        return h.to(x.dtype)

    def extra_repr(self) -> str:
        clip = "" if self.clip is None else f", clip={self.clip:g}"
        return f"omega={self.omega:g}{clip}"
