"""The command line: parsing, messages, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from binarize.cli import app

HELP_SECONDS = 0.4


def run(*words: str, input: str | None = None):
    """One command in this process: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, list(words), input=input, env={"COLUMNS": "200"})


def seconds(*words: str) -> float:
    """The shortest of five runs of a fresh interpreter."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        found.append(time.perf_counter() - started)
    return min(found)


def test_help_lists_every_command() -> None:
    text = run("--help").stdout
    for name in ("convert", "plan", "rules", "schemes", "report", "demo", "doctor", "version"):
        assert f" {name} " in text


@pytest.mark.slow
def test_help_takes_little_more_than_importing_its_libraries() -> None:
    module = "from binarize.cli import app; app(['--help'], prog_name='binarize')"
    assert seconds("-c", module) - seconds("-c", "import typer, rich") < HELP_SECONDS


def test_a_misspelt_command_is_answered() -> None:
    result = run("convrt")
    assert result.exit_code == 2
    assert "Did you mean 'convert'" in result.stderr


def test_a_misspelt_option_is_answered() -> None:
    result = run("doctor", "--jsn")
    assert result.exit_code == 2
    assert "--json" in result.stderr


def test_json_is_one_document_on_stdout() -> None:
    result = run("version", "--json")
    assert json.loads(result.stdout).keys() == {"version"}
    assert "binarize" in result.stderr
