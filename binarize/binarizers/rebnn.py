"""ReBNN: latent weights that are held near their binary values, the more the more their signs go to and fro.

Xu, Li, Wang, Zhang, Guo, Zhang, Guo, Doermann, Resilient Binary Neural Network, AAAI 2023,
https://arxiv.org/abs/2302.00956; formulas as in the authors' code, https://github.com/SteveTsui/ReBNN
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.adabin_autograd import guarded
from binarize.binarizers.sign import WeightBinarizer, sign
from binarize.binarizers.statistics import filter_axes, mean_abs, wide

__all__ = ["ResilientWeight"]


class _Resilient(torch.autograd.Function):
    """alpha sign(w). With s = sign(w): dw = g alpha + gamma (w - alpha s), dalpha = sum g s - gamma sum (w - alpha s) s."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, alpha: Tensor, turned: Tensor, axes: tuple[int, ...], bounds: tuple[float, float]
    ) -> Tensor:
        ctx.save_for_backward(w, alpha, turned)
        ctx.axes, ctx.bounds = axes, bounds
        return sign(w).mul_(alpha.to(w.dtype))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        w, alpha, turned = ctx.saved_tensors
        signs, size, g = wide(sign(w)), wide(alpha), wide(g)
        gamma = (wide(turned) * g.detach().abs().amax(ctx.axes, keepdim=True)).clamp(*ctx.bounds)
        away = wide(w) - size * signs
        dalpha = ((g - gamma * away) * signs).sum(ctx.axes, keepdim=True)
        return (g * size + gamma * away).to(w.dtype), dalpha.to(alpha.dtype), None, None, None


class ResilientWeight(WeightBinarizer):
    """alpha sign(w) with alpha learned per filter, and a pull of w towards it: dw = g alpha + gamma (w - alpha sign(w)).

    gamma = share of a filter's signs that the last step turned, times max |g|, kept between 1e-5 and 2e-4; `before_step`
    counts the share. Each alpha starts at mean |w| and acts as |alpha|. Only training differs from other schemes: what is
    left of it is a sign and a number a filter.

    Source: the paper's resilient gradient; the start of alpha, which is a random one there, is our own choice.
    """

    # The sizes are parameters already: they belong to rows of the whole weight.
    per_filter = False
    stored = (0, 0)
    turned: Tensor
    above: Tensor
    FLOOR = 1e-4

    def __init__(self, channels: int = 1, low: float = 1e-5, high: float = 2e-4, axis: int = 0) -> None:
        super().__init__()
        self.low, self.high, self.axis = float(low), float(high), axis
        self.alpha = nn.Parameter(torch.ones(channels))
        self.register_buffer("turned", torch.zeros(channels))
        self.register_buffer("above", torch.zeros(0, dtype=torch.bool))

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Set alpha to mean |w| per filter, and remember the signs."""
        self.alpha = nn.Parameter(mean_abs(w, axis).reshape(-1))
        self.register_buffer("turned", w.new_zeros(w.shape[axis]))
        self.register_buffer("above", (w >= 0).flatten())

    @torch.no_grad()
    def before_step(self, w: Tensor) -> None:
        """Count the signs that have changed since the last look."""
        now = (w >= 0).flatten()
        changed = (now != self.above).view_as(w).to(self.turned.dtype)
        self.turned.copy_(changed.mean(filter_axes(w, self.axis)))
        self.above.copy_(now)

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(alpha sign(w), no scale): the pull needs both in one backward pass."""
        shape = [1] * w.dim()
        shape[self.axis] = -1
        alpha = guarded(self.alpha, self.FLOOR).view(shape)
        bounds = (self.low, self.high)
        values: Tensor = _Resilient.apply(
            w, alpha, self.turned.view(shape), filter_axes(w, self.axis), bounds
        )
        return values, None

    def extra_repr(self) -> str:
        return f"{self.alpha.numel()}, low={self.low:g}, high={self.high:g}"
