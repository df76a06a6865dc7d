"""IR-Net: weights balanced before the sign, and an estimator that sharpens during training.

Qin, Gong, Liu, Shen, Wei, Yu, Song, Forward and Backward Information Retention for Accurate Binary Neural
Networks, CVPR 2020, https://arxiv.org/abs/1909.10788
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator

__all__ = ["Ede"]


class Ede(Estimator):
    """sign(x), with the gradient k t (1 - tanh(t x)^2).

    t grows and k = max(1 / t, 1) falls during training: first almost the identity, at the end almost the
    derivative of the sign. A schedule writes both buffers; without one they stay where the authors' code has
    them.

    Source: section 3.3, eq. 11 to 13.
    """

    t: Tensor
    k: Tensor

    def __init__(self, t: float = 0.1, k: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("t", torch.tensor(float(t)))
        self.register_buffer("k", torch.tensor(float(k)))

    def derivative(self, x: Tensor) -> Tensor:
        t, k = self.t.to(x.dtype), self.k.to(x.dtype)
        return (x * t).tanh_().square_().neg_().add_(1).mul_(k * t)
