"""What a trained layer's binarizers do, found out by asking them: two values, and where the input changes over.

A frozen layer keeps numbers only. An input binarizer, with the threshold or BatchNorm in front of it, is a
function of each channel that has two values and changes from one to the other once; wherever its rounding puts
that change, bisection over all float32 numbers finds the first number behind it, so that

    upper value  <=>  x >= threshold        exactly, for every float32 x

A binarizer that is no such function is found out as well, on random inputs, and named in the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.binarizers.ienet import OutputMultiSign
from binarize.layers.layer import BinaryLayer, Threshold
from binarize.packed.window import Window

__all__ = ["InputLevels", "WeightLevels", "read_input", "read_weight"]

# Linear weights are read so many elements at a time.
_SLICE = 1 << 22
_INF_BITS = 0x7F800000
# How far from the threshold, and from 0, a binarizer is tried.
_SPREAD = (0.0, 1e-6, 1e-3, 0.1, 1.0, 1.0, 10.0, 1e3)
Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class InputLevels:
    """A binary input as `centre + sum_k radius[k] * b_k`, b_k = +1 where x >= threshold[k], else -1.

    With `zero_one` it is `radius[0] * b`, b = 1 or 0.
    """

    # (planes, C) float32.
    threshold: Tensor
    radius: tuple[float, ...]
    centre: float
    zero_one: bool
    # bool (C,): channels whose upper value lies below their threshold; b_k has the opposite sign there.
    falling: Tensor
    # Radius of each plane for each output channel, (planes, O), where that differs; `radius` is 1 then.
    by_output: Tensor | None = None

    @property
    def upper(self) -> float:
        """The value where every b is +1."""
        return self.radius[0] if self.zero_one else self.centre + sum(self.radius)

    @property
    def lower(self) -> float:
        """The value where every b is -1, or 0 with `zero_one`."""
        return 0.0 if self.zero_one else self.centre - sum(self.radius)


@dataclass(frozen=True)
class WeightLevels:
    """A binary weight as `centre + scale * sign` per filter."""

    # bool, filters first: where the sign is -1.
    lower: Tensor
    # float64 (O,) each.
    scale: Tensor
    centre: Tensor


def per_channel_front(front: nn.Module | None) -> bool:
    """Whether what stands in front of the sign is a function of each channel alone."""
    if front is None or isinstance(front, Threshold):
        return True
    return isinstance(front, nn.modules.batchnorm._BatchNorm) and front.running_mean is not None


@torch.no_grad()
def read_input(layer: BinaryLayer, window: Window, front: nn.Module | None) -> InputLevels | str:
    """The levels of the layer's input binarizer behind `front`, or in words why it has none."""
    binarizer: Any = layer.input_binarizer
    ask = _Asked(layer, window)

    def prepared(x: Tensor) -> Tensor:
        return x if front is None else front(x)

    if hasattr(binarizer, "planes") and hasattr(binarizer, "factors"):
        factors = [float(f) for f in binarizer.factors()]
        found = [ask.step(_plane(binarizer, prepared, k)) for k in range(len(factors))]
        good = [one for one in found if one is not None]
        falling = [one[1] for one in good]
        if (
            len(good) < len(found)
            or any(one[2] != (1.0, -1.0) for one in good)
            or any(f.any() for f in falling)
        ):
            return f"{type(binarizer).__name__} has no thresholds"
        threshold = torch.stack([one[0] for one in good])
        if isinstance(binarizer, OutputMultiSign):
            if window.pads and layer.pad_value:
                return f"{type(binarizer).__name__} pads each of its planes"
            by_output = binarizer.output_factors().double().cpu()
            return InputLevels(threshold, (1.0,) * len(good), 0.0, False, falling[0], by_output)
        return InputLevels(threshold, tuple(factors), 0.0, False, falling[0])
    step = ask.step(lambda x: binarizer(prepared(x)))
    if step is None:
        return f"{type(binarizer).__name__} is no comparison with one threshold a channel"
    threshold, falls, (upper, lower) = step
    if lower == 0.0:
        return InputLevels(threshold[None], (upper,), 0.0, True, falls)
    return InputLevels(threshold[None], ((upper - lower) / 2,), (upper + lower) / 2, False, falls)


def _plane(binarizer: Any, prepared: Step, k: int) -> Step:
    return lambda x: cast(Tensor, binarizer.planes(prepared(x))[k])


class _Asked:
    """Puts inputs of a layer's shape, type and device to functions of them."""

    def __init__(self, layer: BinaryLayer, window: Window) -> None:
        self.channels, self.axes = window.in_channels, len(window.kernel)
        weight = layer.weight
        self.dtype, self.device = weight.dtype, weight.device
        parts = [part for part in (layer.threshold, layer.input_binarizer) if part is not None]
        self.of_tokens = not self.axes and all(getattr(part, "channel_dim", 1) == -1 for part in parts)

    def image(self, x: Tensor) -> Tensor:
        """Shapes: float32 (n, C) -> (n, C, 1, ...)."""
        return x.to(self.dtype).reshape(*x.shape, *[1] * self.axes)

    def row(self, function: Step, x: Tensor) -> Tensor:
        """Shapes: float32 (C,) -> float64 (C,)."""
        return function(self.image(x[None])).reshape(self.channels).double()

    def step(self, function: Step) -> tuple[Tensor, Tensor, tuple[float, float]] | None:
        """(threshold, where the value falls there, (upper, lower value)); None where it is no such function."""
        limit = torch.finfo(torch.float16 if self.dtype == torch.float16 else torch.bfloat16).max
        ends = torch.full((2, self.channels), float(limit), device=self.device)
        ends[0] = -ends[0]
        first, last = (self.row(function, end) for end in ends)
        values = torch.unique(torch.cat([first, last])).tolist()
        if len(values) > 2 or values[0] != values[0]:
            return None
        levels = _levels(values)
        threshold = self._bisect(function, last, ends)
        # Channels with one value for every input are compared with an infinity.
        constant = first == last
        threshold = torch.where(constant, torch.where(last == levels[0], -torch.inf, torch.inf), threshold)
        falling = (first > last) & ~constant
        if not self._confirmed(function, threshold, first, last):
            return None
        return threshold, falling, levels

    def _bisect(self, function: Step, last: Tensor, ends: Tensor) -> Tensor:
        """The smallest float32 per channel from which on the function has its last value."""
        below, reached = _order(ends[0]), _order(ends[1])
        while bool((reached - below > 1).any()):
            middle = (below + reached) // 2
            there = self.row(function, _number(middle)) == last
            below, reached = torch.where(there, below, middle), torch.where(there, middle, reached)
        return _number(reached)

    def _confirmed(self, function: Step, threshold: Tensor, first: Tensor, last: Tensor) -> bool:
        """Whether the comparison agrees with the function near the threshold, far from it, in any batch."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * len(_SPREAD), self.channels, *[3] * self.axes, generator=generator)
        noise *= torch.tensor(_SPREAD * 2).view(-1, *[1] * (self.axes + 1))
        shape = (1, -1, *[1] * self.axes)
        x = noise.to(self.device)
        x[: len(_SPREAD)] += threshold.nan_to_num(0.0, 0.0, 0.0).view(shape)
        x = x.to(self.dtype)
        expected = torch.where(x < threshold.view(shape), first.view(shape), last.view(shape))
        if not torch.equal(function(x).double(), expected.double()):
            return False
        # Of tokens, one may look at the others of its sample, which rows by themselves do not show.
        found = function(x.unflatten(0, (2, -1))).flatten(0, 1) if self.of_tokens else expected
        return torch.equal(found.double(), expected.double())


def _levels(values: list[float]) -> tuple[float, float]:
    """(upper, lower); where every channel has the same single value, one that makes the other side harmless."""
    if len(values) == 2:
        return values[1], values[0]
    (only,) = values
    if only == 0.0:
        return 1.0, 0.0
    return abs(only), -abs(only)


def _order(x: Tensor) -> Tensor:
    """The place of a float32 in the order of all of them, 0 for zero."""
    bits = x.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _number(order: Tensor) -> Tensor:
    """The float32 in that place."""
    size = order.abs().clamp_max(_INF_BITS).int().view(torch.float32)
    return torch.where(order < 0, -size, size)


@torch.no_grad()
def read_weight(layer: BinaryLayer, window: Window) -> WeightLevels | str:
    """The two values of each filter and which weight has which, or in words why there are not two."""
    why = getattr(layer.weight_binarizer, "why_unpacked", None)
    if why is not None:
        return str(why)
    lower = torch.empty(window.weight_shape, dtype=torch.bool)
    scale, centre = (
        torch.empty(window.out_channels, dtype=torch.float64),
        torch.empty(window.out_channels, dtype=torch.float64),
    )
    for rows, values, factor in _slices(layer, window):
        flat = values.flatten(1)
        upper, least = flat.amax(1, keepdim=True), flat.amin(1, keepdim=True)
        is_lower = flat != upper
        if not torch.equal(torch.where(is_lower, least, upper), flat):
            return f"{type(layer.weight_binarizer).__name__} gives a filter more than two values"
        # A filter of one value is a sign and a size.
        one = (upper == least).squeeze(1)
        is_lower |= (one & (upper.squeeze(1) < 0))[:, None]
        top, bottom = upper.squeeze(1).double(), least.squeeze(1).double()
        scale[rows] = (torch.where(one, top.abs(), (top - bottom) / 2) * factor).cpu()
        centre[rows] = (torch.where(one, 0.0, (top + bottom) / 2) * factor).cpu()
        lower[rows] = is_lower.view(-1, *window.weight_shape[1:]).cpu()
    return WeightLevels(lower, scale, centre)


def _slices(layer: BinaryLayer, window: Window) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which filters, their binary weights with filters first, what multiplies them)."""
    weight = layer.real_weight()
    step = window.out_channels
    if window.kind == "linear" and getattr(layer.weight_binarizer, "per_filter", False):
        step = max(_SLICE // weight.shape[1], 1)
    for start in range(0, window.out_channels, step):
        rows = slice(start, min(start + step, window.out_channels))
        values, scale = layer.binarized_weight(weight[rows] if step < window.out_channels else weight)
        count = rows.stop - rows.start
        factor = torch.ones(count) if scale is None else scale.double().reshape(-1).expand(count)
        yield rows, window.filters_first(values), factor.to(device=values.device, dtype=torch.float64)
