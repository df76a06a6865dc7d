"""ReSTE: the derivative of a root in place of that of the sign, closer to it the higher the root.

Wu, Zheng, Liu, Zheng, Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary Neural
Networks Training, ICCV 2023, https://arxiv.org/abs/2308.06689; formulas as in the authors' code,
https://github.com/DravenALG/ReSTE
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator
from binarize.binarizers.statistics import wide

__all__ = ["PowerSign"]


class PowerSign(Estimator):
    """sign(x), with the gradient |x|^(1 / o - 1) / o where 0.1 < |x| <= t, the root's mean slope 0.1^(1 / o - 1) below,
    and 0 beyond t.

    o grows from 1, the straight-through estimator, to 3 during training; a schedule writes the buffer.
    """

    o: Tensor
    # Below it the derivative of the root would grow without bound.
    STEEP = 0.1

    def __init__(self, o: float = 1.0, t: float = 1.5) -> None:
        super().__init__()
        self.t = float(t)
        self.register_buffer("o", torch.tensor(float(o)))

    def derivative(self, x: Tensor) -> Tensor:
        size = wide(x).abs()
        power = 1 / self.o.to(size.dtype) - 1
        slope = size.clamp_min(self.STEEP).pow(power)
        h = torch.where(size > self.STEEP, slope / self.o.to(size.dtype), slope)
        return (h * (size <= self.t)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"t={self.t:g}"
