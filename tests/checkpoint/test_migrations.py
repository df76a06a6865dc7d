"""Records of older versions are brought up to date step by step; unknown ones are refused by name."""

from __future__ import annotations

from typing import Any

import nets
import pytest
from plans import plan_of

from binarize.checkpoint.migrations import FORMAT, migrate
from binarize.errors import SourceError
from binarize.planning.plan import Plan, plan_digest
from binarize.planning.record.capture import CalibrationState
from binarize.rules.load import load_rule_set

# Two invented changes: a field got another name, then another unit.
STEPS = {
    1: lambda record: {("size" if key == "length" else key): value for key, value in record.items()},
    2: lambda record: {**record, "size": record["size"] * 8},
}


@pytest.mark.parametrize(
    "record", [{"format": 1, "length": 4}, {"format": 2, "size": 4}, {"format": 3, "size": 32}]
)
def test_every_older_version_becomes_the_current_one(record: dict[str, Any]) -> None:
    before = dict(record)
    assert migrate(record, "x/binarize.json", STEPS, current=3) == {"format": 3, "size": 32}
    assert record == before


def test_a_record_of_today_is_left_alone() -> None:
    record = {"format": FORMAT, "plan": {}}
    assert migrate(record, "x") == record


@pytest.mark.parametrize(
    "record, steps, message",
    [
        (
            {"format": 4},
            STEPS,
            r"x: format 4 is newer than this version of binarize reads \(3\); update torch-binarize",
        ),
        ({"format": 2}, {1: STEPS[1]}, "x: format 2 can no longer be read; convert the float model again"),
        ({"format": 0}, STEPS, "format 0 can no longer be read"),
        ({"format": "1"}, STEPS, "x: not a record of a converted model"),
        ({"format": True}, STEPS, "x: not a record of a converted model"),
        ({}, STEPS, "x: not a record of a converted model"),
        ([], STEPS, "x: not a record of a converted model"),
        (None, STEPS, "x: not a record of a converted model"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(record: Any, steps: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        migrate(record, "x", steps, current=3)


def test_words_about_the_capture_become_data_and_packed_files_still_know_the_plan() -> None:
    """Files that an earlier version packed name the plan by a digest of the form that it had then."""
    plan = plan_of(nets.ConvRelu(), load_rule_set("adabin", shortcuts="missing")).to_json()
    scales = [decision.pop("scale_values") for decision in plan["decisions"]]
    former = {
        **plan,
        "capture": {"level": "meta", "notes": [], "containers": {}, "calibration": "none: not asked for"},
    }
    record = migrate({"format": 4, "plan": former, "seen": {}}, "x")
    read = Plan.from_json(record["plan"])
    assert (
        read.digest
        == plan_digest(former)
        != Plan.from_json(read.to_json() | {"capture": plan["capture"]}).digest
    )
    assert read.capture.calibration.state is CalibrationState.NOT_ASKED
    assert [decision.scale_values for decision in read.decisions] == scales
    assert [edit.to_json() for edit in read.edits] == former["edits"]
