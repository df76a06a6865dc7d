"""What finetune.json, and the checkpoint of a training, may say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from binarize.checkpoint.data_schema import COUNT, JSON, TEXT, Checked, check_data
from binarize.checkpoint.record_schema import Preprocessing
from binarize.errors import RuleError, SourceError, way
from binarize.rules.schema import check_recipe
from binarize.rules.text import plain
from binarize.rules.yaml.document import Document

__all__ = ["check_stored", "check_training", "way_out"]

_NAMES = Annotated[list[TEXT], Field(max_length=1 << 20)]


class _Training(Checked):
    """What was trained with what. The file has no version, so that keys of later ones are left alone."""

    model_config = ConfigDict(extra="allow")

    data: TEXT
    images: COUNT
    classes: _NAMES
    validation: TEXT | None
    preprocessing: Preprocessing | None
    teacher: TEXT
    # Of trainings of earlier versions, and of teachers that were modules, there are no names.
    teachers: _NAMES | None = None
    # What the model was before the first step.
    start: TEXT | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)]
    # Checked as that of a file.
    recipe: dict[TEXT, JSON]
    options: dict[TEXT, JSON] = {}
    finished: bool = False
    result: dict[TEXT, JSON] | None = None


class _Stored(Checked):
    """The part of a checkpoint that is read before the model is."""

    stage: Annotated[int, Field(ge=1, le=1 << 20)]
    step: COUNT


def way_out() -> str:
    """How to go on where what is stored of a training is of no use."""
    return f"begin the training anew: {way('--force', 'force=True')} without {way('--resume', 'resume')}"


def check_training(record: object, where: str) -> None:
    """Check what finetune.json holds. Raises: SourceError with the first wrong value's keys."""
    check_data(_Training, record, where, way_out())
    assert isinstance(record, dict)
    try:
        name = f"{where}: recipe"
        given = {key: value for key, value in record["recipe"].items() if value is not None}
        check_recipe(Document(name, plain(given, name)))
    except RuleError as error:
        raise SourceError(f"{error}\n  {way_out()}") from None


def check_stored(stored: Mapping[str, Any], where: str) -> None:
    """Check what a checkpoint says of its training. Raises: SourceError with the first wrong value's keys."""
    given = {key: stored[key] for key in ("stage", "step") if key in stored}
    check_data(_Stored, given, where, way_out())
    check_training(stored.get("record"), f"{where}: record")
