"""The version of what lands on disk: older records are brought up to date, unknown ones refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from binarize.errors import SourceError

__all__ = ["FORMAT", "migrate"]

# Raised with every change of binarize.json or of the tensors' names that an older reader would get wrong.
FORMAT = 4


def _without_widths(record: dict[str, Any]) -> dict[str, Any]:
    """Format 1 -> 2: RSign has learned a width since, which was 1 and stood in no file."""
    return {**record, "absent": {".input_binarizer.width": 1.0}}


def _with_kinds(record: dict[str, Any]) -> dict[str, Any]:
    """Format 2 -> 3: of the example only shapes were written down, and all of it was taken for floats."""
    source = dict(record["source"])
    args, kwargs = source.pop("input_shapes"), source.pop("keyword_shapes")

    def kind(shape: list[int]) -> dict[str, Any]:
        return {"tensor": shape, "dtype": "float"}

    source["example"] = {
        "args": [kind(s) for s in args],
        "kwargs": {name: kind(s) for name, s in kwargs.items()},
    }
    return {**record, "source": source}


def _with_nothing_seen(record: dict[str, Any]) -> dict[str, Any]:
    """Format 3 -> 4: how images are shown, classes, data and the file of the user's code were written down nowhere."""
    seen: dict[str, Any] = {"preprocessing": None, "shown_by": None, "classes": [], "data": []}
    return {**record, "seen": seen, "source": {**record["source"], "code_sha256": None}}


# Version -> the step from it to the next one.
_STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _without_widths,
    2: _with_kinds,
    3: _with_nothing_seen,
}


def migrate(record: object, where: str, steps: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = _STEPS,
            current: int = FORMAT) -> dict[str, Any]:  # fmt: skip
    """The record in the current format.

    Raises: SourceError, where it is no record, or its version is newer or can no longer be read.
    """
    if not isinstance(record, dict) or type(record.get("format")) is not int:
        raise SourceError(f"{where}: not a record of a converted model: it names no format version")
    version = record["format"]
    if version > current:
        raise SourceError(
            f"{where}: format {version} is newer than this version of binarize reads ({current}); update torch-binarize"
        )
    while version < current:
        if version not in steps:
            raise SourceError(
                f"{where}: format {version} can no longer be read; convert the float model again"
            )
        try:
            record = steps[version](dict(record))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{where}: damaged: it is no record of format {version}: {error}") from error
        version += 1
        record["format"] = version
    return record
