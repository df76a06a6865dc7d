"""BNN: signs with the straight-through estimator that stops outside the unit interval.

Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, Binarized Neural Networks, 2016,
https://arxiv.org/abs/1602.02830
"""

from __future__ import annotations

from torch import Tensor

from binarize.binarizers.sign import Estimator

__all__ = ["SteSign"]


class SteSign(Estimator):
    """sign(x), with the gradient 1 where |x| <= clip and 0 elsewhere.

    Source: section 1.3, eq. 4. The boundary belongs to the interval, as in the paper.
    """

    def __init__(self, clip: float = 1.0) -> None:
        super().__init__()
        self.clip = float(clip)

    def derivative(self, x: Tensor) -> Tensor:
        return (x.abs() <= self.clip).to(x.dtype)

    def extra_repr(self) -> str:
        return f"clip={self.clip:g}"
