"""Layers whose inputs and weights are ±1 with probabilities. What they hand on are means: 2 P - 1, in [-1, 1].

    x ─ input_binarizer ─ pad with -1 ─┬─ sums of means ──────┬─ P(sum > cut) ─ 2 P - 1     reads "sign"
                                       └─ sums of variances ──┘
                                       └─ sums of means ─ scale ─ bias                      reads "sum": an expectation

    cut = centre - sqrt(fan-in) bias,  centre = the mean of the channel's sums over the batch, kept for evaluation

Each is the binary layer whose place it takes, and once it is hardened it computes what that one computes: signs of its
latents, a bias that holds the threshold, and whatever reads it takes the sign.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.bernoulli.moments import middle, spread_of
from binarize.bernoulli.probability import (
    check_ways,
    nearest_cut,
    probability_of_moments,
    sign_probability,
)
from binarize.binarizers.bernoulli import Means, Probabilities, hard_forward, strict_sign
from binarize.binarizers.sign import sign
from binarize.kernels.tracing import as_one_node
from binarize.layers.conv import BinaryConv2d
from binarize.layers.layer import BinaryLayer, run_parts
from binarize.layers.linear import BinaryLinear

__all__ = ["BernoulliConv2d", "BernoulliLayer", "BernoulliLinear", "ExpectationLinear"]

# Of the running means of a channel's sums.
_MOMENTUM = 0.1
# Where activations are hard in the forward pass, the backward pass takes them as no narrower than this share of the root
# of the fan-in: a hard network's own variance is 0.
_LEAST_WIDTH = 0.5

Self = TypeVar("Self", bound="BernoulliLayer")


class BernoulliLayer(BinaryLayer):
    """What the layers of this file share."""

    centre: Tensor
    # The axis of the channels in what it yields.
    channel_axis: ClassVar[int] = 1
    # Whether activations are signs in the forward pass while their gradient is that of the probability.
    hard_activations = False

    @classmethod
    def from_float(cls: type[Self], layer: nn.Module, **parts: Any) -> Self:
        """As of `BinaryLayer`. Sums of signs have another size than the float layer's: its bias stays with sums alone."""
        new = super().from_float(layer, **parts)
        made: Any = new
        out_channels = cls.channels_of(layer)[1]
        if made.weight_binarizer.reads == "sign":
            made.bias = nn.Parameter(made.weight.new_zeros(out_channels))
        new.register_buffer("centre", made.weight.new_full((out_channels,), float(middle(new.fan_in))))
        return new

    def _set_parts(self, layer: nn.Module, weight: Probabilities) -> None:
        """Become the layer that `from_float` makes of a fresh float layer."""
        check_ways(weight.forward_way, weight.gradient_way)
        made = type(self).from_float(layer, weight_binarizer=weight, input_binarizer=Means(), pad_value=-1.0)
        vars(self).update(vars(made))
        weight.start_from_weight(self.weight, 0)

    @property
    def probabilities(self) -> Probabilities:
        """The weight's part, which also says how sums are computed."""
        return cast(Probabilities, self.weight_binarizer)

    @property
    def fan_in(self) -> int:
        """Terms of a sum."""
        weight = self.weight
        return weight[0].numel()

    @property
    def is_soft(self) -> bool:
        """Whether it still hands on means."""
        return self.probabilities.is_soft

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_soft or self.probabilities.reads == "sum":
            return super().forward(x)
        node = as_one_node(self, x)
        if node is not None:
            return node
        a, theta = self.operand(x), self.binarized_weight()[0]
        mean = self.multiply(a, theta, None)
        cut = self._cut(mean)
        y = self._hard(a, theta, mean, cut) if self.hard_activations else 2 * self._p(a, theta, cut) - 1
        return run_parts(self, x, y)

    def _cut(self, mean: Tensor) -> Tensor:
        """What each channel's sums are compared with. Shapes: sums -> (O,)."""
        centre = self.centre
        if self.training and self.probabilities.centring:
            centre = mean.movedim(self.channel_axis, 0).flatten(1).mean(1)
            with torch.no_grad():
                self.centre.lerp_(centre.to(self.centre.dtype), _MOMENTUM)
        return centre - math.sqrt(self.fan_in) * self.get_parameter("bias")

    @torch.no_grad()
    def calibrate_centre(self, x: Tensor) -> None:
        """Set the centre to the mean of each channel's sums of this input."""
        mean = self.multiply(self.operand(x), self.binarized_weight()[0], None)
        self.centre.copy_(mean.movedim(self.channel_axis, 0).flatten(1).mean(1))

    def _p(self, a: Tensor, theta: Tensor, cut: Tensor) -> Tensor:
        way, gradient = self.probabilities.forward_way, self.probabilities.gradient_way
        if way in ("clt", "edge4") and gradient in ("same", way):
            return probability_of_moments(way, a, theta, self._product, self.fan_in, self._per_channel(cut))
        return self._by_rows(a, theta, cut, way, gradient)

    def _hard(self, a: Tensor, theta: Tensor, mean: Tensor, cut: Tensor) -> Tensor:
        above = mean - self._per_channel(cut)
        with torch.no_grad():
            squares = self._product(a.square(), theta.square())
            width = spread_of(squares, self.fan_in).clamp_min(_LEAST_WIDTH * math.sqrt(self.fan_in))
        return hard_forward(torch.erf(above / (width * math.sqrt(2))), sign(above))

    def _product(self, a: Tensor, theta: Tensor) -> Tensor:
        return self.multiply(a, theta, None)

    def _by_rows(self, a: Tensor, theta: Tensor, cut: Tensor, way: str, gradient: str) -> Tensor:
        """Probabilities from the terms of each sum, one below the other."""
        raise NotImplementedError

    @property
    def centres(self) -> bool:
        """Whether its threshold is put at the mean of its sums, plus what is learned."""
        return self.probabilities.reads == "sign" and self.probabilities.centring

    def offset(self) -> Tensor:
        """What is learned of the threshold, beside its centre. Shape: (O,)."""
        return -math.sqrt(self.fan_in) * self.get_parameter("bias").detach()

    @torch.no_grad()
    def harden(self) -> None:
        """Become a binary layer for good: latents signs, the cut between two sums the bias, inputs signed."""
        weight = self.weight
        if self.probabilities.reads == "sign":
            self.get_parameter("bias").copy_(
                -nearest_cut(self.centre.double() + self.offset().double(), self.fan_in)
            )
            self.centre.zero_()
        weight.copy_(strict_sign(weight))
        self.probabilities.frozen.fill_(True)
        for part in (self.weight_binarizer, self.input_binarizer, self.activation):
            if part is not None and isinstance(part._buffers.get("soft"), Tensor):
                part.get_buffer("soft").fill_(False)


class BernoulliLinear(BernoulliLayer, BinaryLinear):  # type: ignore[misc]  # as of its base
    """(..., I) means -> (..., O) means of the signs of O sums, or their expectations.

    `forward` and `gradient` say how probabilities are computed (see `sign_probability`).
    """

    kind = "linear"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        forward: str = "auto",
        gradient: str = "same",
        confidence: float | None = None,
        centring: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        part = Probabilities(forward, gradient, "sign", confidence, centring=centring)
        self._set_parts(nn.Linear(in_features, out_features, bias=False), part)

    channel_axis = -1

    def _by_rows(self, a: Tensor, theta: Tensor, cut: Tensor, way: str, gradient: str) -> Tensor:
        return sign_probability(a, theta, cut, way, gradient)


class ExpectationLinear(BernoulliLinear):
    """(..., I) means -> (..., O) expectations of sums, for logits: no probability is needed."""

    kind = "linear"

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = False, confidence: float | None = None
    ) -> None:
        nn.Module.__init__(self)
        part = Probabilities(reads="sum", confidence=confidence)
        self._set_parts(nn.Linear(in_features, out_features, bias=bias), part)


class BernoulliConv2d(BernoulliLayer, BinaryConv2d):
    """(N, I, H, W) means -> (N, O, H', W') means of the signs of sums over windows; outside the image is -1."""

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        forward: str = "auto",
        gradient: str = "same",
        confidence: float | None = None,
        centring: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        part = Probabilities(forward, gradient, "sign", confidence, centring=centring)
        layer = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        self._set_parts(layer, part)

    def _by_rows(self, a: Tensor, theta: Tensor, cut: Tensor, way: str, gradient: str) -> Tensor:
        n, _, height, width = a.shape
        windows = F.unfold(a, self.kernel_size, self.dilation, 0, self.stride).transpose(1, 2)
        size = [
            (extent - gap * (side - 1) - 1) // step + 1
            for extent, gap, side, step in zip((height, width), self.dilation, self.kernel_size, self.stride)
        ]
        weights, cuts = theta.flatten(1).chunk(self.groups), cut.chunk(self.groups)
        found = [
            sign_probability(part, weight, one, way, gradient)
            for part, weight, one in zip(windows.chunk(self.groups, -1), weights, cuts)
        ]
        return torch.cat(found, -1).transpose(1, 2).reshape(n, -1, *size)
