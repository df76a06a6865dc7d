"""A packed model as numbers to be written, and numbers put into a rebuilt one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.layers.layer import BinaryLayer
from binarize.modules.places import set_everywhere
from binarize.modules.tensors import is_reordered, set_as_saved, tied_tensors
from binarize.packed.file.format import PackedModel
from binarize.packed.file.tables import Rest, narrowed, rest_bytes
from binarize.packed.fold import folds, without_norm
from binarize.packed.freeze import Frozen, MadeOf, frozen_record, remember_frozen
from binarize.packed.graph.build import build, rehearse
from binarize.packed.graph.lines import put_lines
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = ["alone", "contents_of", "fill", "origin_of", "theory"]

_OWN = ("bits", "scale", "shift", "window_scale", "threshold")
# BatchNorm counts its training batches; a frozen model has no use for the number.
_IDLE = "num_batches_tracked"
_SHA256 = re.compile("[0-9a-f]{64}")
# Of what a file says that its model takes.
_MOST_INPUTS, _MOST_AXES, _LARGEST_INPUT = 64, 16, 1 << 27


def contents_of(
    model: nn.Module, rest: Rest = "fp32", loose: Mapping[str, Tensor] | None = None
) -> PackedModel:
    """What a packed model holds. What stays float takes the values that a file with this `rest` gives back, in place.

    `loose` are tensors that the model's code reads and no state dict holds: they are kept as they are.

    Raises: UsageError, where the model was not packed.
    """
    record = frozen_record(model)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, PackedLayer)}
    if record is None or not layers:
        raise UsageError(
            "the model has no packed layers; expected one that binarize.freeze and pack_layers made"
        )
    tied = {name: group[0] for group in tied_tensors(model) for name in group[1:]}
    state = _floats(model)
    floats = {name: value for name, value in state.items() if name not in tied}
    with torch.no_grad():
        for value in floats.values() if rest != "fp32" else ():
            value.copy_(narrowed(value, rest))
    more = {name: value for name, value in (loose or {}).items() if name not in state}
    # Last digits of a convolution depend on how its weight lies in memory (channels_last).
    strides = {
        name: list(v.stride()) for name, v in (floats | more).items() if is_reordered(v.shape, v.stride())
    }
    about = {
        "folded": dict(record.folded),
        "kept": dict(record.kept),
        "shapes": [list(shape) for shape in record.input_shapes],
        "front": [name for name, layer in layers.items() if layer.front is not None],
        "norm": [name for name, layer in layers.items() if layer.norm is not None],
        "strides": strides,
        "tied": {name: first for name, first in tied.items() if first in floats},
        "loose": list(more),
    }
    if record.made_of is not None:
        about["made_of"] = asdict(record.made_of)
    # Views of one tensor are written one by one.
    kept = {name: value.detach().clone() for name, value in (floats | more).items()}
    return PackedModel(layers, kept, about, frozenset(more))


def theory(contents: PackedModel, rest: Rest) -> int:
    """Bytes of the numbers alone: one bit a sign, four bytes a number of a layer, what stays float as `rest`."""
    packed = sum(layer.packed_bytes() for layer in contents.layers.values())
    return packed + sum(
        rest_bytes(value, "fp32" if name in contents.exact else rest) for name, value in contents.rest.items()
    )


def origin_of(contents: PackedModel) -> MadeOf | None:
    """What the file says that it was made of; None where it does not say it.

    Raises: UsageError, where it says something else.
    """
    said = contents.about.get("made_of")
    if said is None:
        return None
    named = isinstance(said, dict) and said.keys() == {"weights", "plan"}
    if not named or not all(isinstance(text, str) and _SHA256.fullmatch(text) for text in said.values()):
        raise UsageError(f"made_of: {str(said)[:80]} are no digests")
    return MadeOf(**said)


def alone(contents: PackedModel) -> nn.Module:
    """The packed model by the graph that its file holds. The contents' layers become part of it.

    Raises: UsageError, where there is no graph, or its parts do not fit together.
    """
    about = _About(contents.about)
    tensors = {
        name: _in_memory(value, about.strides.get(name), name) for name, value in contents.rest.items()
    }
    for name, first in about.tied.items():
        if first not in tensors or name in tensors:
            raise UsageError(f"{name} is tied to {first}, which is not there")
        tensors[name] = tensors[first]
    model = build(contents.about.get("graph"), contents.layers, tensors)
    held = sum(layer.packed_bytes() for layer in contents.layers.values())
    rehearse(model, about.shapes, held + sum(value.nbytes for value in contents.rest.values()))
    remember_frozen(model, about.record(origin_of(contents)))
    return model


def fill(model: nn.Module, contents: PackedModel) -> None:
    """Make a rebuilt model, whose numbers do not matter, the packed one. In place, in evaluation mode.

    Raises: UsageError, where the contents are those of another model; it is then of no use any more.
    """
    about = _About(contents.about)
    for path, layer in contents.layers.items():
        place = _module(model, path)
        if not isinstance(place, BinaryLayer) or Window.of(place) != layer.window:
            raise UsageError(f"{path}: is a {type(place).__name__} of another shape than the packed layer")
        layer.take_parts(place)
        layer.front = place.threshold if path in about.front else None
        layer.norm = place.norm if path in about.norm else None
        set_everywhere(model, path, layer)
    for path in about.folded.values():
        norm = _module(model, path)
        if not folds(norm):
            raise UsageError(
                f"{path}: is a {type(norm).__name__}; expected a BatchNorm that is part of a layer now"
            )
        set_everywhere(model, path, without_norm(norm))
    put_lines(model, contents.about.get("graph"))
    _load(model, contents.rest, about)
    model.eval().requires_grad_(False)
    remember_frozen(model, about.record(origin_of(contents)))


class _About:
    """What `contents_of` keeps beside the numbers, checked."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.folded: dict[str, str] = _texts(about, "folded")
        self.kept: dict[str, str] = _texts(about, "kept")
        self.tied: dict[str, str] = _texts(about, "tied")
        self.front, self.norm = set(_names(about, "front")), set(_names(about, "norm"))
        self.loose = set(_names(about, "loose"))
        shapes, strides = about.get("shapes"), about.get("strides")
        if (
            not isinstance(shapes, list)
            or len(shapes) > _MOST_INPUTS
            or not all(_is_input(one) for one in shapes)
        ):
            raise UsageError(f"about.shapes: {str(shapes)[:80]} are no shapes of inputs")
        self.shapes = tuple(tuple(shape) for shape in shapes)
        if not isinstance(strides, dict) or not all(_are_sizes(one) for one in strides.values()):
            raise UsageError(f"about.strides: {str(strides)[:80]} are none")
        self.strides: dict[str, list[int]] = strides

    def record(self, made_of: MadeOf | None) -> Frozen:
        return Frozen(self.folded, self.kept, None, self.shapes, made_of)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


def _is_input(value: Any) -> bool:
    return (
        _are_sizes(value)
        and len(value) <= _MOST_AXES
        and math.prod(max(n, 1) for n in value) <= _LARGEST_INPUT
    )


def _texts(about: Mapping[str, Any], key: str) -> dict[str, str]:
    value = about.get(key)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UsageError(f"about.{key}: {str(value)[:80]} names no layers")
    return value


def _names(about: Mapping[str, Any], key: str) -> list[str]:
    value = about.get(key)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"about.{key}: {str(value)[:80]} names no layers")
    return value


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"there is no module {path!r}") from error


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """The state of everything but the packed layers' own numbers."""
    own = {
        f"{path}.{name}"
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, PackedLayer)
        for name in _OWN
    }
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor) and name not in own and not name.endswith(_IDLE)
    }


def _load(model: nn.Module, rest: Mapping[str, Tensor], about: _About) -> None:
    floats = _floats(model)
    rest = {name: value for name, value in rest.items() if name not in about.loose}
    tied = {name for group in tied_tensors(model) for name in group[1:]}
    missing = sorted(floats.keys() - tied - rest.keys())
    unexpected = sorted(rest.keys() - floats.keys())
    if missing or unexpected:
        raise UsageError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
    with torch.no_grad():
        for name, saved in rest.items():
            value = floats[name]
            if value.shape != saved.shape or value.is_floating_point() != saved.is_floating_point():
                raise UsageError(
                    f"{name} is {saved.dtype} {tuple(saved.shape)}, expected {tuple(value.shape)}"
                )
            saved = _in_memory(saved, about.strides.get(name), name)
            set_as_saved(value, saved, saved.stride())


def _in_memory(saved: Tensor, strides: list[int] | None, name: str) -> Tensor:
    """A tensor of the file in the order in memory that it had."""
    if strides is None or tuple(strides) == saved.stride():
        return saved
    if not is_reordered(saved.shape, strides):
        raise UsageError(f"{name}: {strides} are no strides of {tuple(saved.shape)}")
    return torch.empty_strided(saved.shape, strides, dtype=saved.dtype).copy_(saved)
