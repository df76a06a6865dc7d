"""What README.md tells people to type works as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from binarize.cli import app
from binarize.rules.files import builtin_rule_sets

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every `binarize ...` line and of every `binarize ...` in the text."""
    lines = [line.partition("#")[0] for block in blocks("") for line in block.splitlines()]
    lines += re.findall(r"`(binarize [^`]*)`", README)
    return [line.split() for line in lines if line.startswith("binarize ")]


def test_the_two_commands_come_first() -> None:
    assert [line.split("#")[0].strip() for line in blocks("")[0].splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_exists(words: list[str]) -> None:
    options = [word for word in words if word.startswith("--")]
    verbs = [word for word in words[1:3] if word.isalpha()]
    shown = CliRunner().invoke(app, [*verbs, "--help"], env={"COLUMNS": "200"})
    if shown.exit_code:  # the second word is an argument, no verb
        shown = CliRunner().invoke(app, [verbs[0], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert all(option in shown.stdout for option in options)


def test_the_python_block_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == [line.split("# ")[1] for line in block.splitlines() if line.startswith("print(")]
    assert (tmp_path / "digits-bireal" / "model.safetensors").exists()


def test_the_table_of_schemes_is_whole() -> None:
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in methods.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`([\w-]+)`", row)) == builtin_rule_sets()


def test_every_path_it_names_exists() -> None:
    named = re.findall(r"`((?:examples|binarize|benchmarks|docs|tests|rules)/[\w./]+)`", README)
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
