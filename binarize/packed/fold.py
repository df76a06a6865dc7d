"""A trained binary layer -> its frozen form: the signs, and one affine map for all that is affine behind them.

With the binary weight cw + sw * w, the binary input ca + sa * a (w, a = +1 or -1) and the gain g and offset h of
everything affine behind the product (learned scale, bias, BatchNorm), one output position is

    y = g * sum (cw + sw * w) (ca + sa * a) + h
      = A * dot + C * Sa + ((E * Sw + F * n) + B)

    A = g sw sa    C = g cw sa    E = A ca / sa    F = C ca / sa    B = h

where dot, Sa, Sw and n are sums over the taps inside the image (see `kernels.reference`). Where no tap lies outside,
Sw and n are constants and go into B. Where the trained layer pads with a value v, the taps outside add
g v (sw Sw + cw n) over themselves: ca becomes ca - v in E and F, and B takes that sum over the whole filter.

All of this is worked out in float64 and rounded once. BatchNorm in torch rounds otherwise than an affine map:
frozen and trained layers agree within 1e-5, not bit for bit.

Sources: AdaBin (Tu et al. 2022, https://arxiv.org/abs/2208.08084) for two-level sets; XNOR-Net (Rastegari et al.
2016, https://arxiv.org/abs/1603.05279) for scales behind the product.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from binarize.bernoulli.classes import HARDENED_CLASSES
from binarize.computed_weights import class_without
from binarize.layers.classes import BINARY_CLASSES
from binarize.layers.layer import BinaryLayer
from binarize.packed.frozen.form import Form
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.levels import (
    InputLevels,
    WeightLevels,
    per_channel_front,
    read_input,
    read_weight,
)
from binarize.packed.window import NO_WINDOW, Window

__all__ = ["folds", "freeze_layer", "without_norm"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def freeze_layer(layer: BinaryLayer, norm: nn.Module | None = None) -> FrozenLayer | str:
    """The frozen form of one layer in evaluation mode, or in words why it has none.

    `norm` is a BatchNorm that reads its output and nothing else, to be part of the frozen layer. What stays float
    is shared with `layer`.
    """
    if class_without(layer) not in (*BINARY_CLASSES, *HARDENED_CLASSES):
        return f"{type(layer).__name__} has a forward of its own"
    if layer.product_kind() is None:
        return f"{type(layer).__name__} {NO_WINDOW}"
    if getattr(layer.input_binarizer, "scale_map", None) is not None:
        return f"{type(layer.input_binarizer).__name__} multiplies by a map of its input"
    affine = _affine_behind(layer, norm)
    if affine is None:
        return f"{type(layer.scale).__name__} is no factor per channel"
    window = Window.of(layer)
    weight = read_weight(layer, window)
    if isinstance(weight, str):
        return weight
    front, levels = _read_input(layer, window, weight)
    if isinstance(levels, str):
        return levels
    if levels is not None and len(levels.radius) > 1 and bool(weight.centre.any()):
        return "its filters have two free values and its input several thresholds"
    frozen = FrozenLayer.of(*_formed(window, weight, levels, layer.pad_value, *affine))
    frozen.take_parts(layer)
    frozen.front = front
    if folds(layer.norm):
        frozen.norm = None
    return frozen.to(layer.weight.device).eval()


def _read_input(
    layer: BinaryLayer, window: Window, weight: WeightLevels
) -> tuple[nn.Module | None, InputLevels | str | None]:
    """(what stays in front of the comparison, the levels: None for a float input, a string where there are none)."""
    if layer.input_binarizer is None:
        return layer.threshold, None
    if not per_channel_front(layer.threshold):
        return layer.threshold, read_input(layer, window, None)
    levels = read_input(layer, window, layer.threshold)
    if isinstance(levels, str) and layer.threshold is not None:
        return layer.threshold, read_input(layer, window, None)
    if isinstance(levels, str) or not bool(levels.falling.any()):
        return None, levels
    # A channel that falls has its signs turned round. Sums over the window would not turn with them.
    plain = not levels.zero_one and not bool(weight.centre.any()) and not levels.centre
    if plain and not (window.pads and layer.pad_value):
        return None, levels
    return layer.threshold, read_input(layer, window, None)


def _formed(
    window: Window,
    weight: WeightLevels,
    levels: InputLevels | None,
    pad_value: float,
    gain: Tensor,
    offset: Tensor,
) -> tuple[Form, Tensor]:
    """(the numbers, where a sign is -1): the algebra of this module."""
    size = window.filter_size
    sums = (size - 2 * weight.lower.flatten(1).sum(1)).double()
    # Padding with a value has a meaning for zeros padding alone; it comes after the input's binarizer.
    padded = window.kind == "conv" and window.pads
    outside = pad_value if padded else 0.0
    scale, centre, shift = gain * weight.scale, gain * weight.centre, offset.clone()
    if levels is None:
        tables = (_rounded(scale[None]), _rounded(shift), _nonzero(centre))
        return Form(window, *tables, pad_value=outside, float_input=True), weight.lower
    lower = weight.lower
    if bool(levels.falling.any()):
        lower = lower ^ _of_input_channels(levels.falling, window)
    radius = torch.tensor(levels.radius, dtype=torch.float64)
    planes = radius[:, None] if levels.by_output is None else levels.by_output
    ratio, inside = 0.0, 0
    if padded and outside == levels.upper:
        inside = 1
    elif padded and outside == levels.lower:
        inside = 0 if levels.zero_one else -1
    elif window.pads:
        ratio = (levels.centre - outside) / levels.radius[0]
    everywhere = outside if ratio else levels.centre
    shift += everywhere * (scale * sums + centre * size)
    form = Form(
        window,
        _rounded(scale[None] * planes),
        _rounded(shift),
        _nonzero(centre * radius[0]),
        levels.threshold.cpu() if bool(levels.threshold.any()) or len(radius) > 1 else None,
        float(torch.tensor(ratio, dtype=torch.float32)),
        inside,
        levels.zero_one,
    )
    return form, lower


def _of_input_channels(falling: Tensor, window: Window) -> Tensor:
    """The mask of a weight, filters first, from that of the layer's input channels."""
    of_groups = falling.cpu().view(window.groups, -1)
    filters = of_groups.repeat_interleave(window.out_channels // window.groups, dim=0)
    return filters.view(*filters.shape, *[1] * len(window.kernel))


def _rounded(table: Tensor) -> Tensor:
    return table.float().cpu()


def _nonzero(table: Tensor) -> Tensor | None:
    return _rounded(table) if bool(table.any()) else None


def _affine_behind(layer: BinaryLayer, norm: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """(gain, offset) per output channel as float64, of scale, bias and norms; None where the scale is no factor."""
    out_channels = Window.of(layer).out_channels
    gain = torch.ones(out_channels, dtype=torch.float64)
    offset = torch.zeros(out_channels, dtype=torch.float64)
    if layer.scale is not None:
        factor = _factor(layer, layer.scale, out_channels)
        if factor is None:
            return None
        gain = gain * factor
    if layer.bias is not None:
        offset = offset + _wide(layer.bias)
    for one in (layer.norm, norm):
        if folds(one):
            gain, offset = _through_norm(one, gain, offset)
    return gain, offset


def _through_norm(norm: nn.BatchNorm2d, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    factor = (_wide(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * _wide(norm.weight)
    offset = (offset - _wide(norm.running_mean)) * factor
    return gain * factor, offset if norm.bias is None else offset + _wide(norm.bias)


def _wide(tensor: object) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor.detach().double().cpu()


def _factor(layer: BinaryLayer, scale: nn.Module, out_channels: int) -> Tensor | None:
    """What a learned scale multiplies each channel by; None where it does something else."""
    if getattr(scale, "size", ()):
        return None  # other numbers for other positions
    weight = layer.weight
    ones = weight.new_ones(1, out_channels, *[1] * (weight.dim() - 2))
    factor = scale(ones)
    probe = torch.linspace(-2, 2, out_channels, device=ones.device).to(ones.dtype).view(ones.shape)
    if not torch.equal(scale(probe), probe * factor):
        return None
    return _wide(factor).reshape(-1)


def folds(norm: object) -> TypeGuard[nn.BatchNorm2d]:
    """Whether a norm is an affine map of each channel in evaluation mode (and of timm's, what it does first)."""
    known = type(norm) in _NORMS or _is_norm_act(norm)
    return known and getattr(norm, "running_mean", None) is not None


def _is_norm_act(norm: object) -> bool:
    return type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.startswith("timm.")


def without_norm(norm: nn.Module) -> nn.Module:
    """What is left of a norm whose numbers went into the layer in front of it."""
    if not _is_norm_act(norm):
        return nn.Identity()
    return nn.Sequential(norm.get_submodule("drop"), norm.get_submodule("act"))
