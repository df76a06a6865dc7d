"""Names of repeated blocks written as one: layer2.0.conv2 .. layer2.3.conv2 -> layer2.[0-3].conv2."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

__all__ = ["Fold", "fold", "fold_names"]

# A number without leading zeros: only such a number survives the way through int.
_INDEX = re.compile(r"(?<!\d)(0|[1-9]\d*)(?!\d)")


@dataclass(frozen=True)
class Fold:
    """One name for one or more members, given by their positions in the input."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class _Item:
    """Text between the indices, for each index the set of its values, and who is meant."""

    texts: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]
    key: Hashable
    members: tuple[int, ...]


def fold(names: Sequence[str], keys: Sequence[Hashable]) -> list[Fold]:
    """Groups of names that differ in indices alone and whose keys are equal, in order of their first member.

    A written set stands for exactly its members: `a[0-1].b[1-2]` is never three of the four.
    """
    items = []
    for position, (name, key) in enumerate(zip(names, keys, strict=True)):
        parts = _INDEX.split(name)
        indices = tuple((int(value),) for value in parts[1::2])
        items.append(_Item(tuple(parts[0::2]), indices, key, (position,)))
    for axis in range(max((len(item.indices) for item in items), default=0)):
        alike: dict[Hashable, list[_Item]] = {}
        for item in items:
            elsewhere = (item.indices[:axis], item.indices[axis + 1 :])
            alike.setdefault((item.texts, elsewhere, item.key), []).append(item)
        items = [_merge(group, axis) for group in alike.values()]
    items.sort(key=lambda item: item.members[0])
    return [Fold(_write(item), item.members) for item in items]


def _merge(group: Sequence[_Item], axis: int) -> _Item:
    """Items that differ at one index, as one."""
    first = group[0]
    if len(group) == 1:
        return first
    members = tuple(sorted(member for item in group for member in item.members))
    if axis >= len(first.indices):
        return replace(first, members=members)
    values = tuple(sorted({value for item in group for value in item.indices[axis]}))
    return replace(
        first, indices=(*first.indices[:axis], values, *first.indices[axis + 1 :]), members=members
    )


def fold_names(names: Sequence[str], most: int = 8) -> str:
    """A list of names as one line: "fc, layer[2-4].0.downsample.0"; beyond `most` entries a count."""
    folds = fold(names, [None] * len(names))
    if len(folds) <= most:
        return ", ".join(item.name for item in folds)
    rest = sum(len(item.members) for item in folds[most - 1 :])
    return ", ".join(item.name for item in folds[: most - 1]) + f" and {rest} more"


def _write(item: _Item) -> str:
    name = item.texts[0]
    for text, values in zip(item.texts[1:], item.indices, strict=True):
        name += (str(values[0]) if len(values) == 1 else f"[{_ranges(values)}]") + text
    return name


def _ranges(values: tuple[int, ...]) -> str:
    """(0, 1, 2, 5) -> "0-2,5"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
