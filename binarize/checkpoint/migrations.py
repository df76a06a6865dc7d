"""The version of what lands on disk: older records are brought up to date, unknown ones refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from binarize.errors import RuleError, SourceError
from binarize.planning.plan import decision_of, former_hints, plan_digest
from binarize.planning.record.former import capture_of_words, former_scale_values
from binarize.schemes.scheme import Scheme

__all__ = ["FORMAT", "migrate"]

# Raised with every change of binarize.json or of the tensors' names that an older reader would get wrong.
FORMAT = 5


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


def _with_data_for_words(record: dict[str, Any]) -> dict[str, Any]:
    """Format 4 -> 5: how the model was seen stood in words; what packing keeps of a binarizer was counted by its name."""
    plan = dict(record["plan"])
    capture = replace(capture_of_words(plan["capture"]), written_as=plan_digest(plan))
    filters = {name: _weight_of(scheme) for name, scheme in plan["schemes"].items()}
    plan["decisions"] = [
        {
            **item,
            "scale_values": former_scale_values(filters.get(item["scheme"]), item["layer"]["out_channels"]),
        }
        for item in plan["decisions"]
    ]
    schemes = {name: Scheme.from_json(name, scheme) for name, scheme in plan["schemes"].items()}
    hints = former_hints(map(decision_of, plan["decisions"]), schemes)
    plan |= {"capture": capture.to_json(), "hints": [hint.to_json() for hint in hints]}
    return {**record, "plan": plan}


def _weight_of(scheme: Mapping[str, Any]) -> str | None:
    part = scheme.get("weight")
    return part.get("part", part.get("binarizer")) if isinstance(part, dict) else part


# Version -> the step from it to the next one.
_STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _without_widths,
    2: _with_kinds,
    3: _with_nothing_seen,
    4: _with_data_for_words,
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
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, RuleError) as error:
            raise SourceError(f"{where}: damaged: it is no record of format {version}: {error}") from error
        version += 1
        record["format"] = version
    return record
