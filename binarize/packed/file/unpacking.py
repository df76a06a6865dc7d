"""A packed file, alone or with its folder -> the packed model that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from binarize.checkpoint.load import rebuild
from binarize.errors import SourceError, UsageError
from binarize.packed.file.contents import alone, fill, origin_of
from binarize.packed.file.format import PackedModel, read_file
from binarize.packed.freeze import MadeOf

__all__ = ["open_packed", "read_packed", "stands_alone"]


def read_packed(file: Path) -> tuple[PackedModel, MadeOf | None]:
    """(what a packed file holds, what it says that it was made of).

    Raises: SourceError, where it is none, or damaged.
    """
    contents = read_file(file)
    try:
        return contents, origin_of(contents)
    except UsageError as error:
        raise SourceError(f"{file}: no packed model: {error}") from error


def stands_alone(contents: PackedModel, model: nn.Module | None, source: str | None) -> bool:
    """Whether the file is all that is needed: it holds a graph, and nobody asked for an object of the float class."""
    return contents.about.get("graph") is not None and model is None and source is None


def open_packed(
    file: Path,
    contents: PackedModel,
    folder: Path,
    record: Mapping[str, Any] | None,
    model: nn.Module | None = None,
    source: str | None = None,
) -> nn.Module:
    """The model of a file that was read, by its own graph, or in the float model that the folder's record makes.

    Raises: SourceError, where its parts do not fit together; what `binarize.load` raises.
    """
    try:
        if record is None or stands_alone(contents, model, source):
            return alone(contents)
        rebuilt, _, _ = rebuild(folder, record, model=model, source=source)
        fill(rebuilt, contents)
    except UsageError as error:
        raise SourceError(f"{file}: its parts do not fit together: {error}") from error
    return rebuilt
