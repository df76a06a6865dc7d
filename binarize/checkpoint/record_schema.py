"""What binarize.json may hold, key by key, in the newest format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Union

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from binarize.checkpoint.data_schema import COUNT, FINITE, JSON, SIZE, TEXT, Checked, check_data, data_model
from binarize.checkpoint.edit_schema import EDIT
from binarize.conversion.source_record import SourceRecord
from binarize.errors import RuleError, SourceError
from binarize.inputs.arguments import DTYPES, FLOAT
from binarize.inputs.seen import Seen
from binarize.planning.advice import Advice, Hint
from binarize.planning.plan import Decision, Plan
from binarize.planning.record.capture import Calibrated, CalibrationState, Capture, Level, ShapesFrom
from binarize.rules.rule_set import Unmatched
from binarize.rules.schema import check_file
from binarize.rules.text import plain
from binarize.rules.values import fault, unexpected, words
from binarize.rules.yaml.document import Document

__all__ = ["Preprocessing", "check_record"]

WAY_OUT = "binarize.json is written by binarize alone; convert the float model again"

# Elements of one example: two thousand images of 224 x 224 pixels.
_MOST_ELEMENTS = 1 << 28
_MOST_AXES = 16
_MOST_SIDE = 1 << 14
_MOST_ARGUMENTS = 1 << 12
# Whole numbers of the example are drawn in 64 bits.
_MOST_WHOLE = 1 << 63
_SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_SEED = Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
_NAMES = Annotated[list[TEXT], Field(max_length=1 << 17)]


def _dtype(value: str) -> str:
    if value != FLOAT and value not in DTYPES:
        raise unexpected(value, "a type of torch such as float, int64 or bool")
    return value


class _Tensor(Checked):
    """A tensor of the example, as `TensorKind` has it."""

    tensor: Annotated[list[SIZE], Field(max_length=_MOST_AXES)]
    dtype: Annotated[str, AfterValidator(_dtype)]
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> _Tensor:
        if math.prod(self.tensor) > _MOST_ELEMENTS:
            raise fault(f"holds {math.prod(self.tensor)} elements; expected at most {_MOST_ELEMENTS}")
        if self.dtype != FLOAT and not DTYPES[self.dtype].is_floating_point:
            for key, end in (("low", self.low), ("high", self.high)):
                if end is not None and not -_MOST_WHOLE <= end < _MOST_WHOLE:
                    raise fault(f"is {end}; expected a number that {self.dtype} can hold", (key,))
        return self


class _Value(Checked):
    value: bool | int | float | TEXT | None


class _Tuple(Checked):
    items: Annotated[list[_Argument], Field(max_length=_MOST_ARGUMENTS, alias="tuple")]


class _List(Checked):
    items: Annotated[list[_Argument], Field(max_length=_MOST_ARGUMENTS, alias="list")]


class _Dict(Checked):
    items: Annotated[dict[TEXT, _Argument], Field(max_length=_MOST_ARGUMENTS, alias="dict")]


_HOLDERS = {"tensor": _Tensor, "dict": _Dict, "value": _Value, "tuple": _Tuple, "list": _List}


def _holder(value: object) -> str | None:
    return next((f"<{key}>" for key in _HOLDERS if isinstance(value, Mapping) and key in value), None)


_Argument: Any = Annotated[
    Union[tuple(Annotated[kind, Tag(f"<{key}>")] for key, kind in _HOLDERS.items())],  # noqa: UP007
    Discriminator(_holder, "kind", f"Input should be a mapping with one of {', '.join(_HOLDERS)}"),
]
for _model in (_Tuple, _List, _Dict):
    _model.model_rebuild()


class _Example(Checked):
    args: Annotated[list[_Argument], Field(max_length=_MOST_ARGUMENTS)]
    kwargs: Annotated[dict[TEXT, _Argument], Field(max_length=_MOST_ARGUMENTS)]


_INTERPOLATION = words("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class Preprocessing(Checked):
    """How images are shown; the numbers of each channel fit the size."""

    size: Annotated[list[Annotated[int, Field(ge=1, le=_MOST_SIDE)]], Field(min_length=3, max_length=3)]
    mean: Annotated[list[FINITE], Field(max_length=_MOST_SIDE)]
    std: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(max_length=_MOST_SIDE)]
    crop: Annotated[float, Field(gt=0, le=2)] = 1.0
    interpolation: _INTERPOLATION = "bilinear"  # type: ignore[valid-type]
    origin: TEXT = ""

    @model_validator(mode="after")
    def _of_one_length(self) -> Preprocessing:
        for key, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, self.size[0]):
                raise fault(
                    f"has {len(numbers)} numbers; expected one for each of {self.size[0]} channels", (key,)
                )
        if math.prod(self.size) > _MOST_ELEMENTS:
            raise fault(f"is too large; expected at most {_MOST_ELEMENTS} values an image", ("size",))
        return self


_Calibrated = data_model(
    Calibrated,
    {"state": words(*(state.value for state in CalibrationState))},
    needed=[field.name for field in fields(Calibrated)],
)
_Capture = data_model(
    Capture,
    {
        "level": words(*(level.value for level in Level)),
        "shapes": words(*(shapes.value for shapes in ShapesFrom)),
        "notes": _NAMES,
        "source_notes": _NAMES,
        "calibration": _Calibrated,
        "sources": dict[TEXT, _SHA256],
        "float_weights": _SHA256 | None,
        "written_as": _SHA256 | None,
    },
    needed=[field.name for field in fields(Capture)],
)
_Hint = data_model(Hint, {"advice": words(*(advice.value for advice in Advice))})
_Plan = data_model(
    Plan,
    {
        "decisions": Annotated[list[data_model(Decision)], Field(max_length=1 << 17)],  # type: ignore[misc]
        "edits": Annotated[list[EDIT], Field(max_length=1 << 18)],
        # Checked as those of a rule file.
        "schemes": dict[TEXT, dict[TEXT, JSON]],
        "unmatched": Annotated[list[data_model(Unmatched, needed=["nearest"])], Field(max_length=1 << 17)],  # type: ignore[misc]
        "hints": Annotated[list[_Hint], Field(max_length=16)],  # type: ignore[valid-type]
        "capture": _Capture,
    },
    needed=[field.name for field in fields(Plan)],
)
_Source = data_model(
    SourceRecord, {"example": _Example | None, "float_weights": _SHA256 | None}, needed=["example"]
)
_Seen = data_model(
    Seen, {"preprocessing": Preprocessing | None}, needed=[field.name for field in fields(Seen)]
)


class _Fingerprint(Checked):
    # Of older formats none was written.
    record: _SHA256 | None = None
    tensors: _SHA256
    machine: dict[TEXT, int | TEXT | None]
    output: _SHA256 | None


class _Record(Checked):
    format: COUNT
    versions: dict[TEXT, TEXT] = {}
    source: _Source  # type: ignore[valid-type]
    plan: _Plan  # type: ignore[valid-type]
    rules: dict[TEXT, JSON]
    seed: _SEED
    command: TEXT | None
    seen: _Seen  # type: ignore[valid-type]
    tied: Annotated[list[Annotated[_NAMES, Field(min_length=1)]], Field(max_length=1 << 17)]
    modes: dict[TEXT, bool]
    frozen: _NAMES
    absent: dict[TEXT, FINITE]
    strides: dict[TEXT, Annotated[list[COUNT], Field(max_length=_MOST_AXES)]]
    fingerprint: _Fingerprint


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Check a record of the newest format, that of a file `where`.

    Raises: SourceError, which names the first value that no record has, by its keys.
    """
    check_data(_Record, record, where, WAY_OUT)
    plan = record["plan"]
    try:
        for key, data in (("rules", record["rules"]), ("plan", {"schema": 1, "schemes": plan["schemes"]})):
            name = f"{where}: {key}"
            check_file(Document(name, plain(data, name)))
    except RuleError as error:
        raise SourceError(f"{error}\n  {WAY_OUT}") from None
    for i, edit in enumerate(plan["edits"]):
        scheme = edit["args"].get("scheme")
        if scheme is not None and scheme not in plan["schemes"]:
            raise SourceError(
                f"{where}: plan.edits.{i}.args.scheme: expected the name of one of plan.schemes, found {scheme!r}"
                f"\n  {WAY_OUT}"
            )
