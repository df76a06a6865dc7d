"""Examples that are quick enough to run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_scheme_of_ones_own_is_converted_trained_packed_and_exported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(EXAMPLES / "your_own_scheme.py"), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert said.startswith("converted with CauchySign, RootMeanSquareSign, TwoSlopes; after a few steps 0.9")
    assert "outputs bit-equal to the frozen form" in said
    assert "every nonlinearity part of a kernel" in said
    assert "exported net.c:\n" in said and "exported net.onnx:\n" in said
    assert said.count("it equals the trained model's frozen form") == 2
