"""The examples of other people's training loops: short, and they learn."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["timm_trainer", "hf_trainer"])
def test_an_example_has_80_lines_at_most(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.slow
def test_timms_loop_learns(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "timm_trainer.py"))
    example["main"].__globals__["EPOCHS"] = 2
    example["main"]()
    found = [float(value) for value in re.findall(r"held out ([\d.]+) %", capsys.readouterr().out)]
    # Guessing gives 10; two of two epochs gave 95.
    assert len(found) == 2 and found[-1] > 70


@pytest.mark.slow
def test_hugging_faces_trainer_learns(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    runpy.run_path(str(EXAMPLES / "hf_trainer.py"))["main"]()
    found = [float(value) for value in re.findall(r"'eval_top1': '?([\d.]+)", capsys.readouterr().out)]
    assert len(found) == 5 and found[-1] > 0.9
