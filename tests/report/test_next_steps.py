"""What is said to come next: what is not done yet."""

from __future__ import annotations

import pytest

from binarize.report.words import next_commands


@pytest.mark.parametrize(
    ("done", "verbs"),
    [
        ({}, ["calibrate", "finetune", "pack"]),
        ({"calibrated": True}, ["finetune", "pack"]),
        ({"calibrated": True, "trained": True}, ["eval", "pack"]),
        ({"trained": True}, ["eval", "pack"]),
    ],
)
def test_only_what_is_left_is_named(done: dict[str, bool], verbs: list[str]) -> None:
    commands = next_commands("a net", "bz", **done)
    assert [command.split()[1] for command in commands] == verbs
    assert all(command.startswith("bz ") and "'a net'" in command for command in commands)
