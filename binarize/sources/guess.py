"""Which architecture a state dict is of, where it was not given: one that fits is used, of several none.

Candidates come from the name that a training script wrote beside the weights, and from the table of names and shapes.
Each is built and compared before it is believed, so that a newer library than the table's cannot mislead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from binarize.errors import SourceError, UsageError
from binarize.sources import architectures, prefixes, state_dicts
from binarize.sources.fill import Mismatch, mismatch, new_head, x
from binarize.sources.index import Index, read_index
from binarize.sources.index.fingerprints import Shapes, shapes_of
from binarize.sources.state_dicts import Checkpoint

__all__ = ["Guess", "default_classes", "guess"]

# Of so many of the nearest by their sketches the common tensors are counted, and so many are named.
COUNTED, NAMED = 6, 3
# With less in common, naming an architecture would mislead.
LEAST_COMMON = 0.25
# The share of all weights that the model's own make at least, where an average and other things lie beside it.
LEAST_VIEW = 0.25
# First names of what a training script keeps beside the model: the weights of classes in its loss, its metrics.
TRAINING = re.compile(r"^[^.]*(loss|criterion|metric|accuracy|_acc\b)")


@dataclass(frozen=True)
class Guess:
    """The one architecture that the weights fit, and how it was found."""

    arch: str
    note: str


def guess(checkpoint: Checkpoint, path: str) -> Guess:
    """The architecture of the weights in a checkpoint.

    Raises: SourceError, where several architectures that compute different things take them (listed), or none does (the
    nearest are named).
    """
    index, state = read_index(), checkpoint.state
    names = list(state)
    state_dicts.refuse_no_float(names, path)
    held = f"{path}: holds {len(names)} weights ({', '.join(names[:3])}, ...) but no model"
    written = [arch for arch in checkpoint.archs if _fits(arch, state)]
    views = _views(state)
    if len(groups := index.functions(written)) == 1:
        return Guess(groups[0][0], f"took the architecture {groups[0][0]} that the checkpoint names")
    for outer, view in views.items():
        found = [arch for arch in index.candidates(shapes_of(view)) if _fits(arch, view)]
        groups = index.functions([arch for arch in found if arch in written] or found)
        if len(groups) > 1:
            modules = frozenset(
                path.removeprefix(outer) for path in checkpoint.modules if path.startswith(outer)
            )
            groups = [group for group in groups if _possible(group, modules)] or groups
        if groups and (rest := _rest(state, view, outer)):
            raise SourceError(
                f"{held}; those under {outer!r} fit {groups[0][0]}, which leaves {len(rest)} others "
                f"({', '.join(rest[:3])}, ...)\n  --arch {_shell(groups[0][0])} takes those and drops the others; "
                "--arch file.py:make_model builds the whole model"
            )
        if len(groups) == 1:
            return _chosen(groups[0])
        if groups:
            lines = [f"  --arch {_shell(group[0])}{_same(group)}" for group in groups]
            raise SourceError(
                "\n".join(
                    [f"{held}; several that compute different things take them, say which it is:", *lines]
                )
            )
    raise SourceError(f"{held}, and {_known(index)} has none that takes them\n{_nearest(index, views)}")


def default_classes(arch: str) -> int | None:
    """How many classes an architecture of the table has where nobody says."""
    return next((entry.classes or None for entry in read_index().entries if entry.arch == arch), None)


def _chosen(group: list[str]) -> Guess:
    note = f"took the architecture {group[0]}, whose weights have these names and shapes{_same(group)}"
    return Guess(group[0], f"{note}; --arch names another")


def _known(index: Index) -> str:
    return " and ".join(f"{library} {version}" for library, version in index.versions.items())


def _same(group: list[str]) -> str:
    return f" ({', '.join(group[1:])} computes the same)" if len(group) > 1 else ""


def _shell(arch: str) -> str:
    return f"'{arch}'" if "(" in arch else arch


def _views(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights as they are, and a good part of them that shares an outer name, without it."""
    views = {"": state}
    for outer in prefixes.outer_names(state):
        view = prefixes.inside(state, outer)
        if len(view) >= LEAST_VIEW * len(state):
            views[outer] = view
    return views


def _rest(state: Mapping[str, Tensor], view: Mapping[str, Tensor], outer: str) -> list[str]:
    """The weights beside the outer name, without copies of the same model (an average of it)."""
    shapes = shapes_of(view)
    others = [
        name
        for name in prefixes.outer_names(state)
        if name != outer and shapes_of(prefixes.inside(state, name)) == shapes
    ]
    return [name for name in state if not name.startswith((outer, *others)) and not TRAINING.search(name)]


def _difference(arch: str, state: Mapping[str, Tensor]) -> Mismatch | None:
    """How the weights differ from what an architecture takes; None where this version of its library has it not."""
    try:
        module = architectures.build(arch, meta=True).module
    except (SourceError, UsageError):
        return None
    return mismatch(module, prefixes.unwrapped(dict(state), module)[0])


def _fits(arch: str, state: Mapping[str, Tensor]) -> bool:
    difference = _difference(arch, state)
    if difference is None:
        return False
    return not difference or new_head(difference, default_classes(arch)) is not None


def _possible(group: list[str], modules: frozenset[str]) -> bool:
    """Whether weights with these modules around them can be of one of the architectures.

    Blurring has no weights, but its module has a name, which torch writes beside the weights. Published weights may have
    been loaded into another library's modules and saved from there; those that nobody published have not.
    """
    if not modules:
        return True
    return any(_is_published(arch) or modules == _modules(arch) for arch in group)


def _modules(arch: str) -> frozenset[str]:
    module = architectures.build(arch, meta=True).module
    return frozenset(name for name, _ in module.named_modules(remove_duplicate=False))


def _is_published(arch: str) -> bool:
    """Whether the library has weights of this architecture to download."""
    library, name = arch.partition("(")[0].split(":")
    if library == "torchvision":
        from torchvision import models

        return len(models.get_model_weights(name)) > 0
    import timm

    return bool(timm.models.is_model_pretrained(name))


def _nearest(index: Index, views: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The architectures that have most of the names and shapes in common with the weights."""
    counted: dict[str, tuple[float, str]] = {}
    for view in views.values():
        shapes = shapes_of(view)
        for near in index.nearest(shapes, COUNTED):
            difference = _difference(near.arch, view)
            if difference is None:
                continue
            wrong = {key for key, _, _ in difference.shapes}.union(difference.unexpected)
            common = sum(1 for name in shapes if name not in wrong)
            share = common / max(len(shapes) + len(difference.missing), 1)
            if share >= LEAST_COMMON and share > counted.get(near.arch, (0.0, ""))[0]:
                counted[near.arch] = share, f"  {near.arch} has {_in_common(common, shapes, difference)}"
    best = sorted(counted.items(), key=lambda item: (-item[1][0], item[0]))[:NAMED]
    named = ["  nearest:", *(f"  {text}" for _, (_, text) in best)] if best else []
    return "\n".join(
        [*named, "  say which it is, as in --arch torchvision:resnet18 or --arch file.py:make_model"]
    )


def _in_common(common: int, shapes: Shapes, difference: Mismatch) -> str:
    text = f"{common} of these {len(shapes)} in the same shape"
    if difference.missing:
        text += f", and {len(difference.missing)} more ({difference.missing[0]}{', ...' * (len(difference.missing) > 1)})"
    if difference.shapes:
        key, wanted, found = difference.shapes[0]
        text += f"; {key} is {x(found)} here and {x(wanted)} there"
    return text
