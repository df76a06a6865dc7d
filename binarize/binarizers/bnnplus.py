"""BNN+: the derivative of a Swish-like curve in place of the derivative of sign.

Darabi, Belbahri, Courbariaux, Partovi Nia, Regularized Binary Network Training, 2018,
https://arxiv.org/abs/1812.11800
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator

__all__ = ["SwishSign"]

# Where s(1 - s) is 0 in every type; keeps the products below it finite.
FLAT = 60.0


class SwishSign(Estimator):
    """sign(x), with the gradient beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).

    It is the derivative of 2 s(z) (1 + z (1 - s(z))) - 1 with z = beta x and s the logistic function, and is
    negative beyond |z| = 2.4. Computed as 2 beta q (1 - q) (2 - |z| (1 - 2 q)) with q = s(-|z|), which
    neither overflows nor loses digits.

    Source: the paper's SignSwish and its derivative.
    """

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__()
        self.beta = float(beta)

    def derivative(self, x: Tensor) -> Tensor:
        z = (x * self.beta).abs_().clamp_max_(FLAT)
        q = torch.sigmoid(-z)
        bend = z.mul_(2 * q - 1).add_(2)
        return bend.mul_(q).mul_(1 - q).mul_(2 * self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"
