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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import FilterLevels, Levels, Pure, WeightBinarizer
from binarize.errors import UsageError, did_you_mean
from binarize.kernels import elementwise, native, variants
from binarize.kernels.bits import WORD
from binarize.kernels.geometry import Geometry
from binarize.kernels.tracing import is_recorded

if TYPE_CHECKING:
    from binarize.layers import BinaryLayer

__all__ = ["MODES", "packed_product", "use_packed_forward"]

MODES = ("auto", "on", "off")
_VARIABLE = "BINARIZE_PACKED_FORWARD"


def use_packed_forward(model: nn.Module, mode: str = "auto") -> int:
    """How the binary layers of a model compute their forward pass; the number of layers that were told.

    auto   on bits where the layer can and the shape makes it faster (how every layer starts)
    on     on bits wherever the layer can
    off    by torch's float convolutions and matrix products

    A layer can where both of its binarizers have two values a layer or a filter, there is one group, zeros are padded
    (or -1 or +1, with ±1 inputs), and the input is float32 on a CPU that the kernels know. The environment variable
    BINARIZE_PACKED_FORWARD, read once, is the mode of layers that were told nothing. Gradients are computed in the
    same way in all modes; with ±1 inputs and weights they are the same to the bit.

    Example:
        >>> use_packed_forward(nn.Sequential(nn.ReLU()), "off")
        0

    Raises: UsageError for a mode that is none of the three.
    """
    _checked(mode, "mode")
    from binarize.layers import BinaryLayer  # it imports this file

    layers = [m for m in model.modules() if isinstance(m, BinaryLayer)]
    for layer in layers:
        layer.packed_forward = mode
    return len(layers)


def packed_product(
    layer: BinaryLayer, x: Tensor, weight: Tensor, *, exact: bool
) -> tuple[Tensor, FilterLevels] | None:
    """(product, what the weight's filters are); None where plain torch computes it.

    `exact` asks for a result that is torch's to the bit.
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


def _levels(layer: BinaryLayer, weight: Tensor) -> tuple[Levels | None, FilterLevels | None]:
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
    layer: BinaryLayer, x: Tensor, weight: Tensor, geometry: Geometry, inputs: Levels, filters: Levels
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
    native.convolve(
        variant, image.detach(), laid_out, geometry, threshold, False, {"result": y}, scale=scale,
        shift=torch.zeros(n), **options,
    )  # fmt: skip
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
    return _checked(os.environ.get(_VARIABLE, "auto"), _VARIABLE)


def _checked(mode: str, name: str) -> str:
    if mode not in MODES:
        raise UsageError(f"{name} {mode!r} is none of {', '.join(MODES)}{did_you_mean(mode, MODES)}")
    return mode
