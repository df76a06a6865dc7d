"""The example of a loop of one's own: short, and it learns."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "plain_loop.py"


def test_the_loop_is_shorter_than_15_lines() -> None:
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    (loop,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train"]
    last = loop.body[-1].end_lineno
    assert last is not None and last - loop.body[0].lineno + 1 < 15


def test_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    example["train"].__globals__["EPOCHS"] = 2
    example["main"]()
    *flips, last = capsys.readouterr().out.splitlines()
    assert len(flips) == 4 and all("of the signs changed" in line for line in flips)
    accuracy = float(last.split("binary ")[1].split(",")[0])
    # Guessing gives 0.1; two epochs gave 0.93.
    assert accuracy > 0.7
