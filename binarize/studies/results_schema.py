"""What a line of results.jsonl may say, and the result that a trial's finetune.json holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from binarize.checkpoint.data_schema import COUNT, JSON, TEXT, Checked, check_data

__all__ = ["check_result"]

_MANY = 1 << 20
_NUMBER = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_SHARE = Annotated[float, Field(ge=0, le=1)]
# A network that diverged has a loss that is no number.
_LOSS = float


class _Costs(Checked):
    """Operations and bytes; a later version may count more."""

    model_config = ConfigDict(extra="allow")

    flops: _NUMBER | None = None
    bops: _NUMBER | None = None
    ops: _NUMBER | None = None
    float_bytes: COUNT | None = None
    latent_bytes: COUNT | None = None
    packed_bytes: COUNT | None = None


class _Result(Checked):
    """What a trial came to. Of what it was nothing is read: its id tells that."""

    model_config = ConfigDict(extra="allow")

    id: TEXT
    state: Literal["finished", "failed"] | None = None
    reason: TEXT = ""
    top1: _SHARE | None = None
    loss: _LOSS | None = None
    val_top1: _SHARE | None = None
    val_loss: _LOSS | None = None
    seconds: Annotated[list[_NUMBER], Field(max_length=_MANY)] = []
    minutes: _NUMBER | None = None
    memory: COUNT | None = None
    device_memory: COUNT | None = None
    costs: _Costs = _Costs()


class _Whole(Checked):
    """Everything else in it: JSON of a bounded depth and size."""

    model_config = ConfigDict(extra="forbid")

    result: dict[TEXT, JSON]


def check_result(result: object, where: str) -> None:
    """Check what a trial came to. Raises: SourceError with the first wrong value's keys."""
    way_out = "remove it, and the same study runs the trial again"
    check_data(_Result, result, where, way_out)
    check_data(_Whole, {"result": result}, where, way_out)
