"""BayesBiNN: weights drawn from probabilities, whose parameters are what is trained.

Meng, Bachmann, Khan, Training Binary Neural Networks using the Bayesian Learning Rule, ICML 2020,
https://arxiv.org/abs/2002.10778

The step of its parameters is `BayesBiNN` in training/loop/binary_optimizers.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.statistics import EPS, wide

__all__ = ["MeanFieldSign"]

# Added by the authors above and below the line of the gradient's scale.
TINY = 1e-10


class _Relaxed(torch.autograd.Function):
    """tanh((w + delta) / t), with the gradient g (1 - b^2 + 1e-10) / (t (1 - tanh(w)^2 + 1e-10)) of the output b."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, delta: Tensor, temperature: float) -> Tensor:
        b = ((wide(w) + delta) / temperature).tanh_()
        ctx.save_for_backward(w, b)
        ctx.temperature = temperature
        return b.to(w.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        w, b = ctx.saved_tensors
        scale = (1 - b.square() + TINY) / (ctx.temperature * (1 - wide(w).tanh().square() + TINY))
        # Of a weight that is sure of its sign the scale is 1e10: what overflows ends at the largest number.
        largest = torch.finfo(w.dtype).max
        return (wide(g) * scale).clamp_(-largest, largest).to(w.dtype), None, None


class MeanFieldSign(nn.Module):
    """+1 with probability s(2 w), else -1, drawn anew in each forward pass of training; sign(w) in evaluation.

    A draw is tanh((w + delta) / t) with delta = log(u / (1 - u)) / 2, u uniform: -1 or +1 for nearly all u where t is as
    small as the authors' 1e-10. The gradient is the natural one of w.
    A conversion starts w at START deviations of the float weights, about as sure of their signs as the authors start.
    Source: eq. 9 and 10; that w starts from a float network is our own choice.
    """

    stored = (0, 0)
    scales_weights = True
    START = 10.0

    def __init__(self, temperature: float = 1e-10) -> None:
        super().__init__()
        self.temperature = float(temperature)
        self.evaluated = IdentitySign()

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Scale the float weights of a layer, in place; weights without spread stay as they are."""
        size = wide(w).std(correction=0)
        w.copy_(wide(w) * torch.where(size > EPS, self.START / size, 1.0))

    def draw(self, w: Tensor, u: Tensor) -> Tensor:
        """The weights that belong to the uniform numbers u."""
        edge = torch.finfo(u.dtype).tiny
        delta = (u.clamp_min(edge).log() - (1 - u).clamp_min(edge).log()) / 2
        out: Tensor = _Relaxed.apply(w, delta, self.temperature)
        return out

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale)."""
        return self(w), None

    def forward(self, w: Tensor) -> Tensor:
        if not self.training:
            return self.evaluated(w)
        return self.draw(w, torch.rand_like(w, dtype=torch.promote_types(w.dtype, torch.float32)))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}"
