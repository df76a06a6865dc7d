"""A trained model -> its inference form: every binary layer as signs and one affine map, on a copy.

With the binary weight cw + sw * w, the binary input ca + sa * a (w, a = +1 or -1) and the gain g and offset h of
everything affine behind the product (learned scale, bias, BatchNorm), one output position is

    y = g * sum (cw + sw * w) (ca + sa * a) + h
      = A * dot + C * Sa + ((E * Sw + F * n) + B)

    A = g sw sa    C = g cw sa    E = A ca / sa    F = C ca / sa    B = h

where dot, Sa, Sw and n are sums over the taps inside the image (see `packed.reference`). Where no tap lies outside,
Sw and n are constants and go into B; where the trained layer pads with a value v, taps outside give g v (sw Sw + cw n)
more over the outside, so that ca becomes ca - v in E and F, and B has g v (sw Sw + cw n) of the whole filter.
All of this is worked out in float64 and rounded once. Sources: AdaBin (Tu et al. 2022,
https://arxiv.org/abs/2208.08084) for two-level sets, BNN (Courbariaux et al. 2016, https://arxiv.org/abs/1602.02830)
for BatchNorm as a threshold.

BatchNorm in torch rounds otherwise than this affine map: frozen and trained layers agree within 1e-5, frozen and
packed ones bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.capture import capture
from binarize.capture.shadow import silenced_hooks
from binarize.errors import CaptureError, UsageError
from binarize.foreign_layers import BinaryConv2dSame, BinaryStdConv2d, BinaryStdConv2dSame
from binarize.layers import BINARY_CLASSES, BinaryLayer
from binarize.packed.layers import Form, FrozenLayer, PackedLayer
from binarize.packed.levels import (
    InputLevels,
    WeightLevels,
    per_channel_front,
    read_input,
    read_weight,
)
from binarize.packed.window import Window
from binarize.passes.swap import set_everywhere

__all__ = ["Frozen", "freeze", "freeze_layer", "frozen_record", "pack_layers"]

_CLASSES = (*BINARY_CLASSES.values(), BinaryStdConv2d, BinaryConv2dSame, BinaryStdConv2dSame)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_ATTRIBUTE = "_binarize_frozen"
Example = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True)
class Frozen:
    """What became of a model's binary layers."""

    # Path of a layer -> path of the BatchNorm behind it that is part of its numbers now.
    folded: Mapping[str, str] = field(default_factory=dict)
    # Path of a layer that stays as it was trained -> why.
    kept: Mapping[str, str] = field(default_factory=dict)
    # Why no BatchNorm behind a layer was looked for, if so.
    unseen: str | None = None


def freeze(model: nn.Module, example: Example | None = None) -> nn.Module:
    """A copy of a converted model for inference, its binary layers frozen; `model` itself is left alone.

    `example` holds the arguments of one forward call, of which only shapes and types count. The model is recorded on
    it, to fold each BatchNorm that alone reads a layer's output. Without it those stay what they are.

    Raises: UsageError, where the model has no binary layer.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)}
    if not layers:
        raise UsageError("freeze: the model has no binary layer; expected one that binarize.convert made")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        behind, unseen = _norms_behind(model, example)
        frozen = _copied(model, layers.values())
        folded: dict[str, str] = {}
        kept: dict[str, str] = {}
        for path, layer in layers.items():
            norm = model.get_submodule(behind[path]) if path in behind else None
            made, copied = freeze_layer(layer, norm), cast(BinaryLayer, frozen.get_submodule(path))
            if isinstance(made, str):
                kept[path] = made
                copied.weight = nn.Parameter(cast(Tensor, layer.weight).detach().clone())
                continue
            for part in ("norm", "shortcut", "activation"):
                if getattr(made, part) is not None:
                    setattr(made, part, getattr(copied, part))
            made.front = None if made.front is None else copied.threshold
            set_everywhere(frozen, path, made)
            if norm is not None:
                set_everywhere(frozen, behind[path], nn.Identity())
                folded[path] = behind[path]
    finally:
        for module, training in modes.items():
            module.training = training
    frozen.eval().requires_grad_(False)
    setattr(frozen, _ATTRIBUTE, Frozen(folded, kept, unseen))
    return frozen


def frozen_record(model: nn.Module) -> Frozen | None:
    """What `freeze` did to the model, None for any other model."""
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Frozen) else None


def pack_layers(frozen: nn.Module) -> nn.Module:
    """The same model with one bit a sign, run by the kernels. In place: the frozen layers give their parts away."""
    for path, layer in list(frozen.named_modules()):
        if type(layer) is FrozenLayer:
            packed = PackedLayer.of(layer.form, layer.lower)
            packed.take_parts(layer)
            set_everywhere(frozen, path, packed.eval())
    return frozen


@torch.no_grad()
def freeze_layer(layer: BinaryLayer, norm: nn.Module | None = None) -> FrozenLayer | str:
    """The frozen form of one layer in evaluation mode, or in words why it has none.

    `norm` is a BatchNorm that reads its output and nothing else, to be part of the frozen layer. What stays float
    is shared with `layer`.
    """
    if type(layer) not in _CLASSES:
        return f"{type(layer).__name__} has a forward of its own"
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
    if _folds(layer.norm):
        frozen.norm = None
    return frozen.to(cast(Tensor, layer.weight).device).eval()


def _read_input(
    layer: BinaryLayer, window: Window, weight: WeightLevels
) -> tuple[nn.Module | None, InputLevels | str | None]:
    """(what stays in front of the comparison, the levels: None for a float input, a string where there are none)."""
    if layer.input_binarizer is None:
        return layer.threshold, None
    if not per_channel_front(layer.threshold):
        return layer.threshold, read_input(layer, window, None)
    levels = read_input(layer, window, layer.threshold)
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
        _rounded(scale[None] * radius[:, None]),
        _rounded(shift),
        _nonzero(centre * radius[0]),
        levels.threshold.cpu() if bool(levels.threshold.any()) else None,
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
        if _folds(one):
            gain, offset = _through_norm(cast(Any, one), gain, offset)
    return gain, offset


def _through_norm(norm: nn.BatchNorm2d, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    factor = (_wide(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * _wide(norm.weight)
    offset = (offset - _wide(norm.running_mean)) * factor
    return gain * factor, offset if norm.bias is None else offset + _wide(norm.bias)


def _wide(tensor: Any) -> Tensor:
    return cast(Tensor, tensor).detach().double().cpu()


def _factor(layer: BinaryLayer, scale: nn.Module, out_channels: int) -> Tensor | None:
    """What a learned scale multiplies each channel by; None where it does something else."""
    weight = cast(Tensor, layer.weight)
    ones = weight.new_ones(1, out_channels, *[1] * (weight.dim() - 2))
    factor = scale(ones)
    probe = torch.linspace(-2, 2, out_channels, device=ones.device).to(ones.dtype).view(ones.shape)
    if not torch.equal(scale(probe), probe * factor):
        return None
    return _wide(factor).reshape(-1)


def _folds(norm: object) -> bool:
    """Whether a norm is an affine map of each channel in evaluation mode."""
    return type(norm) in _NORMS and cast(nn.BatchNorm2d, norm).running_mean is not None


def _norms_behind(model: nn.Module, example: Example | None) -> tuple[dict[str, str], str | None]:
    """(path of a layer -> path of the BatchNorm that alone reads its output and nothing else, why there are none)."""
    if example is None:
        return {}, "there was no example input"
    try:
        recording = capture(model, *example).evaluation
    except CaptureError as error:
        return {}, str(error).partition("\n")[0]
    found: dict[str, str] = {}
    modules = dict(model.named_modules())
    for node in recording.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, BinaryLayer) or not _ends_affine(layer) or len(node.users) != 1:
            continue
        (reader,) = node.users
        once = all(recording.calls.get(str(n.target), 0) == 1 for n in (node, reader))
        norm = modules.get(str(reader.target)) if reader.op == "call_module" else None
        # On (N, T, C), BatchNorm1d counts T as its channels.
        channels_fit = not isinstance(layer, nn.Linear) or len(node.meta["shape"]) == 2
        if once and _folds(norm) and reader.args == (node,) and channels_fit:
            found[str(node.target)] = str(reader.target)
    return found, None


def _ends_affine(layer: BinaryLayer) -> bool:
    """Whether nothing but affine maps of channels stands between the layer's product and its output."""
    adds = layer.shortcut is not None and layer.shortcut_inside
    bends = layer.activation is not None and layer.activation_inside
    return not adds and not bends and (layer.norm is None or _folds(layer.norm))


def _copied(model: nn.Module, layers: Iterable[BinaryLayer]) -> nn.Module:
    """A copy without the user's hooks and without the latent weights, which are not needed twice."""
    memo: dict[int, Any] = {
        id(layer.weight): nn.Parameter(torch.empty_like(cast(Tensor, layer.weight), device="meta"))
        for layer in layers
    }
    with silenced_hooks(model):
        return copy.deepcopy(model, memo)
