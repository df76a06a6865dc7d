"""DoReFa-Net with one bit: one weight scale per layer, inputs 0 or 1.

Zhou, Wu, Ni, Zhou, Wen, Zou, DoReFa-Net, 2016, https://arxiv.org/abs/1606.06160
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.sign import Estimator, Pure, WeightBinarizer, sign
from binarize.binarizers.statistics import smallest_divisor, wide
from binarize.binarizers.xnor import UnscaledSign

__all__ = ["LayerScaledSign", "ZeroOne"]


class LayerScaledSign(WeightBinarizer):
    """E sign(w) with E = mean |w| over the whole layer, constant in the backward pass: dw = g.

    Source: section 2.3, the case of 1-bit weights.
    """

    per_filter = False
    stored = (0, 1)

    def __init__(self, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.estimator = IdentitySign() if estimator is None else estimator

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(w), E); E has no axes. Shapes: w (O, ...) -> the same, ()."""
        size = wide(w.detach()).abs().mean()
        scale = size.clamp_min(smallest_divisor(w.dtype)).to(w.dtype)
        values: Tensor = UnscaledSign.apply(w, scale, self.estimator)
        return values, scale


class _ZeroOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x - 0.5).add_(1).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * ((x >= 0) & (x <= 1))


class ZeroOne(Pure):
    """1 where x >= 0.5, else 0: clip(x, 0, 1) rounded to one bit; the gradient is 1 where 0 <= x <= 1.

    Zero padding lies inside these two values. Shapes: any -> same.
    Source: the paper's quantize_k with k = 1, on inputs clipped to [0, 1].
    """

    # Made for values behind a ReLU, which may therefore stay in front.
    nonnegative = True

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _ZeroOne.apply(x)
        return out
