"""The table of architectures, and what it says of a state dict.

A line holds, for one architecture: its name as in `--arch`; the hash of all names; the hash of names and shapes without
the head; the tensors of the head; the number of classes it has by default, 0 where it has no head then; the sketch; and
the first architecture of the table that computes the same with the same weights (itself, where there is none).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from binarize.sources.index.fingerprints import Shapes, body_hash, likeness, names_hash, sketch

__all__ = ["FORMAT", "SHIPPED", "Entry", "Index", "Nearest", "read_index", "write_index"]

FORMAT = 1
SHIPPED = Path(__file__).with_name("architectures.json.gz")


@dataclass(frozen=True)
class Entry:
    """What the table holds of one architecture."""

    arch: str
    names: str
    body: str
    heads: tuple[str, ...]
    classes: int
    sketch: tuple[int, ...]
    same_as: str


@dataclass(frozen=True)
class Nearest:
    """An architecture that does not fit, and about how much of it does."""

    arch: str
    likeness: float
    # All names are the same, so that only shapes differ.
    same_names: bool


@dataclass(frozen=True)
class Index:
    """All architectures of the table, and the versions of the libraries that it was made from."""

    versions: Mapping[str, str]
    entries: tuple[Entry, ...]

    def candidates(self, shapes: Shapes) -> list[str]:
        """The architectures that take tensors of these names and shapes, whatever the number of classes.

        timm builds models without a head as well: those are `NAME(num_classes=0)`, or NAME where that is its default.
        """
        names, whole = names_hash(shapes), body_hash(shapes)
        found = []
        for entry in self.entries:
            optional = entry.heads and entry.arch.startswith("timm:")
            if entry.names == names and entry.body == body_hash(shapes, entry.heads):
                classes = shapes[entry.heads[0]][0] if optional and not entry.classes else None
                found.append(entry.arch if classes is None else f"{entry.arch}(num_classes={classes})")
            elif optional and entry.body == whole:
                found.append(f"{entry.arch}(num_classes=0)" if entry.classes else entry.arch)
        return found

    def functions(self, archs: Iterable[str]) -> list[list[str]]:
        """The same architectures in groups: those in one group compute the same with the same weights."""
        same_as = {entry.arch: entry.same_as for entry in self.entries}
        groups: dict[str, list[str]] = {}
        for arch in archs:
            name, call, classes = arch.partition("(num_classes=")
            groups.setdefault(same_as.get(name, name) + call + classes, []).append(arch)
        return list(groups.values())

    def nearest(self, shapes: Shapes, most: int) -> list[Nearest]:
        """Up to `most` architectures that share names and shapes with a state dict, the nearest first."""
        names, mine = names_hash(shapes), sketch(shapes)
        found = [
            Nearest(entry.arch, likeness(mine, list(entry.sketch)), entry.names == names)
            for entry in self.entries
        ]
        found = [item for item in found if item.same_names or item.likeness > 0]
        return sorted(found, key=lambda item: (not item.same_names, -item.likeness, item.arch))[:most]


@cache
def read_index(path: Path = SHIPPED) -> Index:
    """The table in a file."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    assert data["format"] == FORMAT, "the table belongs to another version of binarize"
    entries = []
    for arch, names, body, heads, classes, packed, same_as in data["entries"]:
        numbers = bytes.fromhex(packed)
        sketched = tuple(int.from_bytes(numbers[i : i + 2], "little") for i in range(0, len(numbers), 2))
        entries.append(Entry(arch, names, body, tuple(heads), classes, sketched, same_as or arch))
    return Index(data["versions"], tuple(entries))


def write_index(index: Index, path: Path) -> None:
    """Writes the table: the same bytes for the same content."""
    lines = []
    for entry in index.entries:
        packed = b"".join(number.to_bytes(2, "little") for number in entry.sketch).hex()
        fields = asdict(entry) | {"heads": list(entry.heads), "sketch": packed}
        fields["same_as"] = "" if entry.same_as == entry.arch else entry.same_as
        lines.append(json.dumps(list(fields.values()), separators=(",", ":")))
    text = f'{{"format":{FORMAT},"versions":{json.dumps(index.versions)},"entries":[\n'
    path.write_bytes(gzip.compress((text + ",\n".join(lines) + "\n]}\n").encode(), mtime=0))
