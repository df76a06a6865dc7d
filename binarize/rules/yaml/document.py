"""Data that remembers where in a text each value stood, and messages that point there."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from binarize.errors import RuleError

__all__ = ["Document", "Fault", "Path", "point_at", "spell"]

# Where a value lies in the data: ("rules", 3, "match", "name").
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, at which path, and whether the key is meant rather than its value."""

    message: str
    path: Path = ()
    at_key: bool = False


@dataclass(frozen=True)
class Document:
    """Data and where it stood. Data that was given as Python objects has no lines."""

    name: str
    data: Any
    lines: Sequence[str] = ()
    # Path -> (line, column), from 0.
    keys: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    values: Mapping[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name without its folders, for reports."""
        return pathlib.Path(self.name).name if self.lines else self.name

    def line(self, path: Path) -> str:
        """`adabin.yaml:12`, or `rules[3]` where there are no lines."""
        if not self.lines:
            return spell(path)
        return f"{self.file}:{self._mark(Fault('', path))[0] + 1}"

    def error(self, *faults: Fault) -> RuleError:
        """One error that shows every fault in its place, in the order of the text."""
        if not self.lines:
            return RuleError(
                "\n".join(": ".join(filter(None, (self.name, spell(f.path), f.message))) for f in faults)
            )
        ordered = sorted(faults, key=self._mark)
        return RuleError(
            "\n".join(point_at(self.name, self.lines, *self._mark(f), f.message) for f in ordered)
        )

    def _mark(self, fault: Fault) -> tuple[int, int]:
        path: Path = ()
        marks = self.keys if fault.at_key else self.values
        for step in fault.path:
            inner = (*path, step)
            if inner in self.values:
                path = inner
            elif step != 0:
                # It lies deeper than the text is split: the value around it will do.
                marks = self.values
                break
            # Else one value stands where the checked data has a list of one.
        return marks.get(path) or self.values.get(path, (0, 0))


def point_at(name: str, lines: Sequence[str], line: int, column: int, message: str) -> str:
    """`name:line:column  message`, the line and the one before it, and a caret under the column."""
    width = len(str(line + 1))
    # Lines are cut to what a terminal shows around the column.
    start = max(0, column - 70)
    shown = []
    for i in (line - 1, line):
        if i >= 0:
            text = lines[i][start : start + 100] if i < len(lines) else ""
            text = "".join(c if c.isprintable() else " " for c in text)
            shown.append(f"    {i + 1:>{width}} | {text}".rstrip())
    caret = f"    {'':>{width}} | {'':>{column - start}}^"
    return "\n".join([f"{name}:{line + 1}:{column + 1}  {message}", *shown, caret])


def spell(path: Path) -> str:
    """A path as one writes it: `rules[3].match.name`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
