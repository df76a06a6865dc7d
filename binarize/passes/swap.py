"""Put a binary layer in place of a float one: the same path, the same parameters, the new parts as its children."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from binarize.attention.explicit import leave_fast_path
from binarize.bernoulli.classes import bernoulli_class
from binarize.errors import CheckError, RewriteError
from binarize.layers.classes import binary_class
from binarize.layers.layer import BinaryLayer, Threshold
from binarize.modules.hooks import HOOK_TABLES
from binarize.modules.places import set_everywhere
from binarize.passes.moments import promised
from binarize.passes.norm import new_norm, start_variance
from binarize.planning.plan import Plan
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import Swap, named_sizes
from binarize.planning.record.origin import Origin
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

__all__ = ["add_thresholds", "swap_layer"]


def swap_layer(root: nn.Module, edit: Swap, scheme: Scheme) -> None:
    """Replace the layer that the edit names, and wherever else the model holds the same object."""
    old = root.get_submodule(edit.container)
    cls = binary_class(old)
    if cls is None:
        raise RewriteError(f"swap: {edit.container} is a {type(old).__name__}, which has no binary class")
    dim = edit.channel_dim
    in_channels, out_channels = cls.channels_of(old)
    weight = _build(scheme.weight, channels=out_channels, axis=int(cls.kind == "conv_transpose"))
    cls = bernoulli_class(cls, weight)
    binarizer = _build(scheme.input, channels=in_channels, out_channels=out_channels, channel_dim=dim)
    norm = new_norm(edit.norm, out_channels) if edit.norm else None
    new: BinaryLayer = cls.from_float(
        old,
        weight_binarizer=weight or nn.Identity(),
        input_binarizer=binarizer,
        threshold=_in_front(edit, in_channels),
        scale=_build(scheme.scale, channels=out_channels, channel_dim=dim, **named_sizes(edit.size)),
        norm=norm,
        shortcut=_shortcut(old, edit, in_channels, out_channels),
        activation=_activation(edit.activation),
        pad_value=scheme.pad_value,
    )
    new.shortcut_inside, new.activation_inside = edit.shortcut_inside, edit.activation_inside
    new.activation_first = edit.activation_first
    new.shares_weight = _is_shared(root, old)
    start = getattr(new.weight_binarizer, "start_from_weight", None)
    if start is not None:
        start(new.real_weight(), getattr(new.weight_binarizer, "axis", 0))
    if norm is not None:
        start_variance(new, norm)
    if edit.threshold is not None:
        _start_threshold(root, new, in_channels, edit.threshold)
    for place in set_everywhere(root, edit.container, new):
        leave_fast_path(root, place)
    # The new layer has its hooks; where anybody still runs the old one, that is all it says.
    old.__dict__.update({name: OrderedDict() for name in HOOK_TABLES}, forward=_refusal(edit.container))


def _refusal(path: str) -> Callable[..., Tensor]:
    """A forward for a layer that was replaced: who still calls it would compute with float weights, without a word."""

    def forward(*_: object, **__: object) -> Tensor:
        raise CheckError(
            f"{path} is binary now, and an object of the model's code still runs the float layer that it was\n  call it as "
            "a child of its module (self.layer(x)), or hold it in a list, a dictionary or a function among the module's "
            "attributes"
        )

    return forward


def add_thresholds(root: nn.Module, before: Plan, after: Plan) -> None:
    """Give the layers of a model that was rewritten by one plan the thresholds that they have by another one alone."""
    known = {edit.container: edit for edit in before.edits if isinstance(edit, Swap)}
    for edit in after.edits:
        if (
            not isinstance(edit, Swap)
            or edit.threshold is None
            or known[edit.container].threshold is not None
        ):
            continue
        layer = root.get_submodule(edit.container)
        assert isinstance(layer, BinaryLayer)
        channels, weight = type(layer).channels_of(layer)[0], layer.weight
        threshold = _in_front(edit, channels)
        if threshold is not None:
            layer.threshold = threshold.to(device=weight.device, dtype=weight.dtype).train(layer.training)
        _start_threshold(root, layer, channels, edit.threshold)


def _is_shared(root: nn.Module, layer: nn.Module) -> bool:
    """Whether another layer has this one's weight."""
    weight = layer._parameters.get("weight")
    holders = [part for part in root.modules() if part._parameters.get("weight") is weight]
    return weight is not None and len(holders) > 1


def _build(part: Part | None, **context: object) -> nn.Module | None:
    return part.build(**context) if part is not None else None


def _in_front(edit: Swap, in_channels: int) -> nn.Module | None:
    """What stands between the layer's input and its sign: XNOR-Net's norm, or a threshold."""
    if edit.input_norm:
        return new_norm(edit.input_norm, in_channels)
    if edit.threshold is not None and not edit.own_threshold:
        return Threshold(in_channels, edit.channel_dim)
    return None


def _shortcut(old: nn.Module, edit: Swap, in_channels: int, out_channels: int) -> nn.Module | None:
    if edit.shortcut is None:
        return None
    # A linear layer has no spatial axes.
    return edit.shortcut.build(in_channels, out_channels, len(getattr(old, "kernel_size", ())))


def _activation(said: NewActivation | None) -> nn.Module | None:
    if said is None or said.part is None:
        return None
    return said.part.build(channels=said.channels, channel_dim=said.channel_dim)


def _start_threshold(root: nn.Module, layer: BinaryLayer, channels: int, origin: Origin) -> None:
    """Start the threshold where the origin promises the mean of each channel."""
    moments = promised(root, origin)
    module = layer.threshold if isinstance(layer.threshold, Threshold) else layer.input_binarizer
    if moments is None or module is None:
        return
    positions, left = divmod(channels, len(moments[0]))
    if left:
        return
    # Behind a flattening, each channel is read at so many positions.
    mean, variance = (moment.repeat_interleave(positions) for moment in moments)
    start = getattr(module, "start", None)
    if start is not None:
        start(mean, variance.sqrt())
        return
    centre = getattr(module, "beta", None)
    for parameter in module.parameters():
        if parameter.numel() == channels:
            parameter.data.copy_(mean.reshape(parameter.shape))
            return
        if parameter is centre and parameter.numel() == 1:
            parameter.data.fill_(mean.mean())
            return
