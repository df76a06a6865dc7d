"""BitNet: weights that are signs around their layer's mean with one scale a layer, inputs of eight bits a token.

Wang, Ma, Dong, Huang, Wang, Ma, Yang, Wang, Wu, Wei, BitNet: Scaling 1-bit Transformers for Large Language Models, 2023,
https://arxiv.org/abs/2310.11453
"""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.sign import Estimator, Pure, WeightBinarizer
from binarize.binarizers.statistics import smallest_divisor, wide
from binarize.binarizers.xnor import UnscaledSign

__all__ = ["AbsMaxInput", "CentredSign"]


class CentredSign(WeightBinarizer):
    """gamma sign(w - mean(w)) with gamma = mean |w|, both of the whole layer and constant in the backward pass: dw = g.

    Source: eq. 1 to 3.
    """

    per_filter = False
    stored = (0, 1)

    def __init__(self, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.estimator = IdentitySign() if estimator is None else estimator

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(w - mean), gamma); gamma has no axes."""
        known = wide(w.detach())
        gamma = known.abs().mean().clamp_min(smallest_divisor(w.dtype)).to(w.dtype)
        values: Tensor = UnscaledSign.apply(wide(w) - known.mean(), wide(gamma), self.estimator)
        return values.to(w.dtype), gamma


class _AbsMax(torch.autograd.Function):
    """x rounded to steps of its row's largest magnitude; the gradient passes untouched."""

    @staticmethod
    def forward(ctx: object, x: Tensor, channel_dim: int, largest: int) -> Tensor:
        step = wide(x).abs().amax(channel_dim, keepdim=True).clamp_min(smallest_divisor(x.dtype)) / largest
        return (wide(x) / step).round_().mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None, None]:
        return g, None, None


class AbsMaxInput(Pure):
    """round(x / step) step with step = max |x| / 127, over the channels of each token or pixel: 8 bits, not two values.

    The gradient is 1. Counted as eight bit planes; a layer with it is not packed. Shapes: (N, C, ...) -> same;
    channel_dim=-1 for (..., C).
    Source: the paper's absmax quantization of activations.
    """

    bitplanes = 8
    LARGEST = 127

    def __init__(self, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _AbsMax.apply(x, self.channel_dim, self.LARGEST)
        return out

    def relaxed(self, x: Tensor) -> Tensor:
        """It rounds finely enough to be its own stand-in while it is not binary yet."""
        return self.forward(x)
