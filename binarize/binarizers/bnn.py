"""BNN: signs with the straight-through estimator that stops outside the unit interval.

Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, Binarized Neural Networks, 2016,
https://arxiv.org/abs/1602.02830

Its nonlinearity is `torch.nn.Hardtanh` between the norm and the sign; latent weights are clipped to [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.sign import Estimator
from binarize.kernels.elementwise import Formula

__all__ = ["SteSign"]


class SteSign(Estimator):
    """sign(x), with the gradient 1 where |x| <= clip and 0 elsewhere.

    Source: eq. 4; the boundary belongs to the interval.
    """

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__()
        self.clip = float(clip)

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() <= self.clip).to(x.dtype)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        # One pass instead of four. This operator leaves the boundary out, so the boundary is the next number.
        bound = self.clip * (1 + torch.finfo(x.dtype).eps)
        out: Tensor = torch.ops.aten.hardtanh_backward(g, x, -bound, bound)
        return out

    def formula(self) -> Formula | None:
        return Formula.clip(self.clip) if type(self) is SteSign else None

    def extra_repr(self) -> str:
        return f"clip={self.clip:g}"
