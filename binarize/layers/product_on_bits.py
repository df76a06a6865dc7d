"""The product of a binary input and a binary weight by XNOR and popcount, in training too.

With the input ca + ra a and the weight cw + rw w (a, w = +1 or -1; one ca and ra a layer, one cw and rw a filter) the
product is

    ra rw (a * w)  +  ra cw (a * 1)  +  ca rw (1 * w)  +  ca cw (1 * 1)

where * is the convolution, whose taps outside the image count nothing. The kernels count the first term on bits, and
the other three are sums over a window. Where ca = cw = 0 and ra = rw = 1 the result is an integer, and bit for bit
that of torch; elsewhere it differs in the last digits, by which sums of floats always differ with their order.

Only the forward pass is changed: gradients are computed from the real-valued input and weight as ever.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import FilterLevels, Levels, Pure, WeightBinarizer
from binarize.errors import UsageError, did_you_mean
from binarize.kernels import elementwise, native, variants
from binarize.kernels.bits import WORD
from binarize.kernels.buffers.arguments import Given
from binarize.kernels.geometry import Geometry
from binarize.kernels.tracing import is_recorded

__all__ = ["MODES", "Multiplies", "checked_mode", "packed_product"]


MODES = ("auto", "on", "off")
_VARIABLE = "BINARIZE_PACKED_FORWARD"


class Multiplies(Protocol):
    """What a product needs of a binary layer.

    Shapes are the layer's own: (N, I, ...) -> (N, O, ...) of a convolution, (..., I) -> (..., O) of a linear layer.
    """

    threshold: nn.Module | None
    input_binarizer: nn.Module | None
    weight_binarizer: nn.Module
    packed_forward: str | None

    def real_weight(self) -> Tensor:
        """The real-valued weight that is binarized."""

    def binarized_weight(
        self, weight: Tensor | None = None, levels: FilterLevels | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(two-valued weight, scale per output channel or None), or some rows of them."""

    def scale_of(self, scale: Tensor | None) -> Tensor | None:
        """A scale per filter as it multiplies the output."""

    def operand(self, x: Tensor) -> Tensor:
        """The binary input, padded where the convolution itself cannot pad like that."""

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        """The convolution or matrix product of an operand and a binary weight, or rows of it."""

    def multiply_backward(
        self,
        g: Tensor,
        a: Tensor,
        values: Tensor,
        needs: tuple[bool, bool],
        size: list[int] | None,
        out: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of `multiply` at the operand and at the binary weight, as far as `needs` asks for them."""

    def is_batch(self, x: Tensor) -> bool:
        """Whether x has a batch axis."""

    def geometry_on(self, x: Tensor) -> Geometry | None:
        """What the kernels have to know of this layer for such an input; None where they cannot compute it."""

    def as_image(self, x: Tensor) -> Tensor:
        """The input as (N, C, H, W)."""

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        """The output from one of (N, O, H', W')."""


def packed_product(
    layer: Multiplies, x: Tensor, weight: Tensor, *, exact: bool
) -> tuple[Tensor, FilterLevels] | None:
    """(product, what the weight's filters are); None where plain torch computes it.

    `exact` asks for a result that is torch's to the bit.

    Shapes: x (N, C, ...) or (..., C) -> (N, O, ...) or (..., O).
    """
    mode = layer.packed_forward or _default_mode()
    if mode == "off" or x.dtype != torch.float32 or weight.dtype != torch.float32 or not x.is_cpu:
        return None
    if is_recorded() or torch.is_autocast_enabled("cpu"):
        return None
    if type(x) is not Tensor or not x.numel() or variants.active(needed=False) is None:
        return None
    geometry = layer.geometry_on(x)
    if geometry is None:
        return None
    if geometry.groups > 1 or not (mode == "on" or _faster(geometry, x)):
        return None
    inputs, filters = _levels(layer, weight)
    if inputs is None or filters is None:
        return None
    plain = inputs.is_plain and filters[0].is_plain
    if not plain and (exact or geometry.pad_value):
        return None
    return _computed(layer, x, weight, geometry, inputs, filters[0]), filters


def _levels(layer: Multiplies, weight: Tensor) -> tuple[Levels | None, FilterLevels | None]:
    """What the layer's binarizers make of the input and of the weight, None where it is not two levels."""
    binarizer, front = layer.input_binarizer, layer.threshold
    if not isinstance(binarizer, Pure) or not isinstance(layer.weight_binarizer, WeightBinarizer):
        return None, None
    inputs = binarizer.input_levels()
    if inputs is None:
        return None, None
    if front is not None:
        tau = getattr(front, "tau", None)
        # x - tau < 0 exactly where x < tau; a second threshold behind it would be rounded otherwise.
        if inputs.threshold is not None or not isinstance(tau, Tensor):
            return None, None
        inputs = replace(inputs, threshold=tau)
    return inputs, layer.weight_binarizer.filter_levels(weight)


def _computed(
    layer: Multiplies, x: Tensor, weight: Tensor, geometry: Geometry, inputs: Levels, filters: Levels
) -> Tensor:
    variant, n = variants.active(needed=False), geometry.out_channels
    assert variant is not None
    image = layer.as_image(x)
    threshold = None if inputs.threshold is None else _spread(inputs.threshold, geometry.in_channels)
    below = None if filters.threshold is None else _spread(filters.threshold, n)
    shape = geometry.weight_shape
    laid_out = native.layout_of(weight.detach().view(shape), below, geometry, variant)
    y = native.new_image(image, geometry, torch.float32)
    options: dict[str, Any] = {}
    radius, centre = _number(inputs.radius), _number(inputs.centre)
    scale = torch.ones(n) if filters.radius is None else _spread(filters.radius, n)
    cw = None if filters.centre is None else _spread(filters.centre, n)
    if centre is not None:
        options["border"] = torch.stack([scale, torch.zeros(n) if cw is None else cw]).mul_(centre)
    if radius is not None:
        scale = scale * radius
        cw = None if cw is None else cw * radius
    if cw is not None:
        options["window_scale"] = cw
    given = Given(image.detach(), threshold=threshold, scale=scale, shift=torch.zeros(n), **options)
    native.convolve(variant, given, laid_out, geometry, {"result": y})
    if image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last):
        y = elementwise.planes(y)
    return layer.from_image(y, x)


def _spread(numbers: Tensor, n: int) -> Tensor:
    return numbers.detach().float().reshape(-1).expand(n)


def _number(one: Tensor | None) -> float | None:
    """The one number of a layer's input."""
    return None if one is None else one.item()


def _faster(geometry: Geometry, x: Tensor) -> bool:
    """Whether bits are likely faster: a word is filled, and enough is done to pay for packing."""
    return geometry.in_channels >= WORD and geometry.out_channels >= WORD


@lru_cache(maxsize=1)
def _default_mode() -> str:
    return checked_mode(os.environ.get(_VARIABLE, "auto"), _VARIABLE)


def checked_mode(mode: str, name: str) -> str:
    if mode not in MODES:
        raise UsageError(f"{name} {mode!r} is none of {', '.join(MODES)}{did_you_mean(mode, MODES)}")
    return mode
