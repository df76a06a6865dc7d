"""The exact sign, and the base classes of estimators and weight binarizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from binarize.kernels import elementwise
from binarize.kernels.tiles import pieces

__all__ = ["Estimator", "Levels", "Pure", "WeightBinarizer", "sign", "sign_"]


def sign(x: Tensor) -> Tensor:
    """-1 where x < 0, else +1, in the type of x: sign(0) = sign(-0.0) = +1.

    Without the kernels three vectorised operations, two of them in place; comparing and casting takes three times
    as long on a CPU.

    Shapes: any -> the same.
    """
    native = elementwise.split(x, elementwise.whole(x))
    if native is not None:
        return native
    out = torch.empty_like(x)
    for x_i, out_i in pieces(x, out):
        sign_(out_i.copy_(x_i))
    return out


def sign_(x: Tensor) -> Tensor:
    """`sign` in place. Shapes: any -> the same."""
    return x.sign_().add_(0.5).sign_()


class _EstimatedSign(torch.autograd.Function):
    """sign(x) forward, g * h(x) backward. Keeps x alone; h is computed when it is needed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(x)
        ctx.estimator = estimator
        return sign(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        native = elementwise.estimate(x, g, elementwise.whole(x), ctx.estimator.formula())
        if native is not None:
            return native[0], None
        if torch.is_grad_enabled():  # asked for with create_graph=True: nothing is written over
            return ctx.estimator.gradient(x, g), None
        dx = torch.empty_like(x)
        for x_i, g_i, dx_i in pieces(x, g, dx):
            dx_i.copy_(ctx.estimator.gradient(x_i, g_i))
        return dx, None


@dataclass(frozen=True)
class Levels:
    """Two values: centre - radius below the threshold, else centre + radius. Numbers of a layer or one a channel."""

    # None stands for 0, 1 and 0.
    threshold: Tensor | None = None
    radius: Tensor | None = None
    centre: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the values are -1 and +1."""
        return self.radius is None and self.centre is None


# What a filter's values are, and the scale that is applied after the product.
FilterLevels = tuple[Levels, Tensor | None]


class Pure(nn.Module):
    """A module whose output depends on its input, parameters and buffers alone, and that changes nothing.

    A binary layer runs such parts again in the backward pass instead of keeping their outputs.
    """

    def input_levels(self) -> Levels | None:
        """The two values that an input becomes; None where it is not as simple as that."""
        return None


class WeightBinarizer(Pure):
    """w -> Wb. A subclass writes `split`; Wb is the product of the two tensors it gives."""

    # Whether a filter's binary values depend on that filter alone, so that a weight may be binarized in slices.
    per_filter = True
    # Whether the scale passes a gradient on to w; else it is constant in the backward pass.
    trains_scale = False
    # Floats that its two values need beside the signs, once trained: per filter, and per layer. What it trains is not here.
    stored = (1, 0)
    # Whether what it trains is of use once it is trained; else it is not stored in the packed form.
    keeps_parameters = True

    def split(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """(two-valued tensor the convolution is run with, scale to be applied after it or None).

        Shapes: w (O, ...) -> the same, (O, 1, ...).
        """
        raise NotImplementedError

    def filter_levels(self, w: Tensor) -> FilterLevels | None:
        """`split` as numbers, those of filters along axis 0; None where it is not as simple as that."""
        return None

    def split_as(self, w: Tensor, levels: FilterLevels) -> tuple[Tensor, Tensor | None]:
        """`split`, given what `filter_levels` told of this weight: statistics need not be taken again."""
        return self.split(w)

    def forward(self, w: Tensor) -> Tensor:
        values, scale = self.split(w)
        return values if scale is None else values * scale


class Estimator(WeightBinarizer):
    """sign(x) whose gradient is g * h(x), where h = `derivative` stands in for the derivative of sign.

    A subclass writes `derivative`: a new tensor of the shape and type of x, finite for every finite x. An
    estimator is an input binarizer, and without a scale a weight binarizer. Shapes: any -> same.
    """

    stored = (0, 0)

    def derivative(self, x: Tensor) -> Tensor:
        """h(x)."""
        raise NotImplementedError

    def formula(self) -> elementwise.Formula | None:
        """h as one of the formulas that the kernels know, if it is one."""
        return None

    def gradient(self, x: Tensor, g: Tensor) -> Tensor:
        """g * h(x); a subclass overrides it where both together take fewer passes."""
        return self.derivative(x).mul_(g)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _EstimatedSign.apply(x, self)
        return out

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(sign(w), no scale)."""
        return self(w), None

    def input_levels(self) -> Levels | None:
        return Levels() if type(self).forward is Estimator.forward else None

    def filter_levels(self, w: Tensor) -> tuple[Levels, None] | None:
        same = type(self).split is Estimator.split and type(self).forward is Estimator.forward
        return (Levels(), None) if same else None
