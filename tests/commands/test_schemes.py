"""`binarize schemes show` and `compare`, and the curves they draw."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from binarize.cli import app
from binarize.commands.console.curve import curve

RUNNER = CliRunner()


def test_a_curve_names_its_ends_and_has_zero_as_dots() -> None:
    assert curve([-1.0, 0.0, 2.0], height=4, title="x") == ["    x", " 2 |  *", "   |", " 0 |.*.", "-1 |*"]
    assert curve([0.0], height=3) == ["0 |*", "  |", "0 |"]
    with pytest.raises(ValueError, match="no values"):
        curve([])


def test_show_says_formula_gradient_and_source_and_draws_both() -> None:
    text = RUNNER.invoke(app, ["schemes", "show", "recu"], env={"COLUMNS": "140"}).stdout
    for words in (
        "-E ln(2 - 2 tau)",
        "Source:",
        "forward, from -2 to 2",
        "derivative in the backward pass",
        "tau_max 0.99",
    ):
        assert words in text
    assert "{" not in text and "\x1b" not in text


def test_compare_shows_what_differs_and_nothing_else() -> None:
    text = RUNNER.invoke(app, ["schemes", "compare", "bireal", "pokebnn"]).stdout
    assert "bnn.SteSign (clip 3)" in text and "bireal, input: bireal.ApproxSign" in text
    assert "bireal.ScaledSign" not in text
    assert "are the same" in RUNNER.invoke(app, ["schemes", "compare", "bnn", "bnn"]).stdout
    found = json.loads(RUNNER.invoke(app, ["schemes", "compare", "bireal", "pokebnn", "--json"]).stdout)
    assert found["differ"]["input"] == ["bireal.ApproxSign", {"part": "bnn.SteSign", "clip": 3}]
    wrong = RUNNER.invoke(app, ["schemes", "compare", "bnn", "adabn"])
    assert wrong.exit_code == 2
