"""A training that is really killed, and one of two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from binarize.training.records.metrics import read_metrics

PROGRAM = Path(__file__).with_name("processes.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(p) for p in (PROGRAM.parents[1], PROGRAM.parents[2])),
}

pytestmark = pytest.mark.slow


def start(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, words)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )


def finish(*words: str | Path) -> None:
    process = start(*words)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_killed_process_loses_no_more_than_since_the_last_checkpoint(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole, "--norm")
    process = start(killed, "--norm", "--slow", "0.2")
    deadline = time.monotonic() + 240
    while not (killed / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert not (killed / "model.safetensors").exists()
    finish(killed, "--norm", "--resume")
    found, wanted = weights(killed), weights(whole)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    finish(tmp_path / "one", "--epochs", "3")
    finish(tmp_path / "two", "--epochs", "3", "--devices", "2")
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == [row["step"] for row in one] == [3, 6, 9]
    found, wanted = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, value in wanted.items():
        # Gradients are the same but for the order of their sums; Adam makes at most lr = 1e-3 of that a step.
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)
    for row, other in zip(two, one):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)
