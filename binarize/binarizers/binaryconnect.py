"""BinaryConnect: binary weights and real-valued inputs; the gradient passes the sign untouched.

Courbariaux, Bengio, David, BinaryConnect, NeurIPS 2015, https://arxiv.org/abs/1511.00363

Latent weights are clipped to [-1, 1] after each step of the optimizer.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Estimator, sign
from binarize.binarizers.statistics import wide
from binarize.errors import UsageError

__all__ = ["IdentitySign", "StochasticSign"]


class IdentitySign(Estimator):
    """sign(x), with the gradient 1 everywhere.

    Source: eq. 1 and algorithm 1.
    """

    def derivative(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        return g


class _Draw(torch.autograd.Function):
    """+1 where u < p, else -1; the gradient passes from the output to w."""

    @staticmethod
    def forward(ctx: object, w: Tensor, p: Tensor, u: Tensor) -> Tensor:
        return sign(u - p).neg_().to(w.dtype)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None, None]:
        return g, None, None


class StochasticSign(nn.Module):
    """+1 with probability p(w), else -1, drawn anew in each forward pass of training; sign(w), or w, in evaluation.

    probability="hard":      p = clip((w + 1) / 2, 0, 1), the paper's hard sigmoid
    probability="logistic":  p = 1 / (1 + exp(-w))

    eval="sign":             sign(w): what a binary network is, and what is packed
    eval="real":             w, the mean of what was drawn, as the authors' code evaluates: such a layer stays unpacked

    A conversion scales the float weights first (`start`): as they are, a few hundredths large, they would be drawn as if
    they were 0.
    Source: eq. 2 and 3; the scale is our own choice.
    """

    # Root mean square of a layer's weights at the start. 1 is certainty: a third of them is drawn as its sign from the
    # beginning on. Half as large, a network learns less in the same time.
    START_SIZE = 1.0

    stored = (0, 0)
    # Whether a conversion changes the float weights, which are then those of the float model no longer.
    scales_weights = True

    def __init__(
        self, probability: Literal["hard", "logistic"] = "hard", eval: Literal["sign", "real"] = "sign"
    ) -> None:
        super().__init__()
        if eval not in ("sign", "real"):
            raise UsageError(f"binaryconnect.StochasticSign: eval is {eval!r}; expected sign or real")
        self.probability = probability
        self.eval_with = eval
        self.evaluated = IdentitySign()

    @property
    def why_unpacked(self) -> str | None:
        """Why no bits can stand for its weights in evaluation; None where they can."""
        return (
            "it evaluates with real weights (eval: real); eval: sign packs signs"
            if self.eval_with == "real"
            else None
        )

    @torch.no_grad()
    def start(self, w: Tensor) -> None:
        """Scale the float weights of a layer, in place; zeros stay as they are. Shapes: w (O, ...)."""
        wide_w = wide(w)
        size = wide_w.square().mean().sqrt()
        w.copy_(wide_w * torch.where(size > 0, self.START_SIZE / size, 1.0))

    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """`start`, as a conversion asks for it."""
        self.start(w)

    def p(self, w: Tensor) -> Tensor:
        """Probability of +1. Shapes: any -> the same."""
        w = wide(w.detach())
        return torch.sigmoid(w) if self.probability == "logistic" else w.add(1).mul_(0.5).clamp_(0, 1)

    def draw(self, w: Tensor, u: Tensor) -> Tensor:
        """+1 where the uniform numbers u lie below p(w). Shapes: w and u alike -> the same."""
        out: Tensor = _Draw.apply(w, self.p(w), u)
        return out

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(signs, no scale). Shapes: w (O, ...) -> the same."""
        return self(w), None

    def forward(self, w: Tensor) -> Tensor:
        if not self.training:
            return w if self.eval_with == "real" else self.evaluated(w)
        return self.draw(w, torch.rand_like(w, dtype=torch.promote_types(w.dtype, torch.float32)))

    def extra_repr(self) -> str:
        return f"probability={self.probability!r}, eval={self.eval_with!r}"
