"""A trained model -> its inference form, on a copy: every binary layer as numbers, BatchNorm behind it among them.

    trained   latent weights, binarized in every forward pass; BatchNorm by torch
    frozen    one byte a sign, an explicit affine map: the reference for everything that runs or is exported
    packed    one bit a sign, run by the kernels; bit for bit what the frozen model computes

A layer that has no frozen form stays as it was trained, and `Frozen` says why.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.bernoulli.classes import is_soft
from binarize.capture import capture
from binarize.errors import CaptureError, UsageError, way
from binarize.inputs.arguments import Images
from binarize.layers.layer import BinaryLayer
from binarize.modules.copies import computed_tensors
from binarize.modules.hooks import silenced_hooks
from binarize.modules.places import set_everywhere
from binarize.packed.fold import folds, freeze_layer, without_norm
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer

__all__ = ["Example", "Frozen", "MadeOf", "freeze", "frozen_record", "pack_layers", "remember_frozen"]

_ATTRIBUTE = "_binarize_frozen"
# Arguments of one call of a model for inference.
Example = Images


@dataclass(frozen=True)
class MadeOf:
    """sha256 of the trained weights, and of the plan, that a model for inference was made of."""

    weights: str
    plan: str


@dataclass(frozen=True)
class Frozen:
    """What became of a model's binary layers."""

    # Path of a layer -> path of the BatchNorm behind it that is part of its numbers now.
    folded: Mapping[str, str] = field(default_factory=dict)
    # Path of a layer that stays as it was trained -> why.
    kept: Mapping[str, str] = field(default_factory=dict)
    # Why no BatchNorm behind a layer was looked for, if so.
    unseen: str | None = None
    # Of the tensors that the model takes, as far as they are known.
    input_shapes: tuple[tuple[int, ...], ...] = ()
    # None in files of versions that did not say it.
    made_of: MadeOf | None = None


def freeze(model: nn.Module, example: Example | None = None) -> nn.Module:
    """A copy of a converted model for inference, its binary layers frozen; `model` itself is left alone.

    `example` holds the arguments of one forward call, of which only shapes and types count. The model is recorded on
    it, to fold each BatchNorm that alone reads a layer's output. Without it those stay what they are.

    Raises: UsageError, where the model has no binary layer, or its signs are still random.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)}
    if not layers:
        raise UsageError("freeze: the model has no binary layer; expected one that binarize.convert made")
    random = [name for name, layer in layers.items() if is_soft(layer)]
    if random:
        raise UsageError(
            f"freeze: the signs of {', '.join(random[:3])}{' and more' if len(random) > 3 else ''} are still random\n"
            f"  {way('binarize finetune --stage full', 'binarize.harden(model)')} gives each its likelier value"
        )
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
                if "weight" in layer._parameters:
                    copied.weight = nn.Parameter(layer.weight.detach().clone())
                continue
            for part in ("norm", "shortcut", "activation"):
                if getattr(made, part) is not None:
                    setattr(made, part, getattr(copied, part))
            made.front = None if made.front is None else copied.threshold
            set_everywhere(frozen, path, made)
            if norm is not None:
                set_everywhere(frozen, behind[path], without_norm(frozen.get_submodule(behind[path])))
                folded[path] = behind[path]
        for path, module in list(frozen.named_modules()):
            plain = getattr(module, "hardened", None)
            if plain is not None:
                set_everywhere(frozen, path, plain())
    finally:
        for module, training in modes.items():
            module.training = training
    frozen.eval().requires_grad_(False)
    shapes = tuple(tuple(value.shape) for value in (example or ((), {}))[0] if isinstance(value, Tensor))
    remember_frozen(frozen, Frozen(folded, kept, unseen, shapes))
    return frozen


def frozen_record(model: nn.Module) -> Frozen | None:
    """What `freeze` did to the model, None for any other model."""
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Frozen) else None


def remember_frozen(model: nn.Module, record: Frozen) -> None:
    """Attach the record to a frozen model."""
    setattr(model, _ATTRIBUTE, record)


def pack_layers(frozen: nn.Module) -> nn.Module:
    """The same model with one bit a sign, run by the kernels. In place: the frozen layers give their parts away."""
    for path, layer in list(frozen.named_modules()):
        if type(layer) is FrozenLayer:
            packed = PackedLayer.of(layer.form, layer.lower)
            packed.take_parts(layer)
            set_everywhere(frozen, path, packed.eval())
    return frozen


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
        if once and folds(norm) and reader.args == (node,) and channels_fit:
            found[str(node.target)] = str(reader.target)
    return found, None


def _ends_affine(layer: BinaryLayer) -> bool:
    """Whether nothing but affine maps of channels stands between the layer's product and its output."""
    adds = layer.shortcut is not None and layer.shortcut_inside
    bends = layer.activation is not None and layer.activation_inside
    return not adds and not bends and (layer.norm is None or folds(layer.norm))


def _copied(model: nn.Module, layers: Iterable[BinaryLayer]) -> nn.Module:
    """A copy without the user's hooks and without the latent weights, which are not needed twice."""
    memo: dict[int, Any] = {
        id(layer.weight): nn.Parameter(torch.empty_like(layer.weight, device="meta"))
        for layer in layers
        if "weight" in layer._parameters
    }
    memo.update(computed_tensors(model))
    with silenced_hooks(model):
        return copy.deepcopy(model, memo)
