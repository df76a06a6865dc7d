"""What an export would refuse, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import binarize
from binarize.cli import app
from binarize.errors import UsageError
from binarize.exporters.foresee import foresee


class Recurrent(nn.Module):
    """Two operations without code in C, a good one behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.cells, self.last = nn.GRU(12, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.cells(self.second(self.first(x).relu()).mean(1))
        scores: Tensor = self.last(y.sort(1)[0][:, -1]).softmax(1)
        return scores


def converted(net: nn.Module) -> nn.Module:
    x = torch.randn(2, 3, 16, 16)
    return binarize.convert(net.eval(), "bireal", example_input=x, binarize=["second"], calibrate=False)


def test_every_operation_without_c_code_is_named_with_the_way_out() -> None:
    found = foresee(converted(Recurrent()), "c")
    assert [one.partition(" has no C code")[0] for one in found] == [
        "export c: cells: gru",
        "export c: sort: sort",
    ]
    assert "try --format onnx" in found[0] and "leave it to the code around the network" in found[1]


def test_nothing_is_said_where_all_can_be_exported(converted_net: nn.Module) -> None:
    assert foresee(converted_net, "c") == ()


@pytest.fixture
def converted_net() -> nn.Module:
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 8, 3))
    net.add_module("second", nn.Conv2d(8, 16, 3))
    net.add_module("last", nn.Sequential(nn.Flatten(), nn.Linear(16 * 144, 4)))
    return converted(net)


def test_a_format_that_is_none_is_refused(converted_net: nn.Module) -> None:
    with pytest.raises(UsageError, match='"cc" is none of'):
        foresee(converted_net, "cc")


def test_plan_shows_the_plan_and_then_what_could_not_be_exported(tmp_path: Path) -> None:
    source = f"from {__name__} import Recurrent\n\n\ndef make():\n    return Recurrent()\n"
    (tmp_path / "recurrent.py").write_text(source)
    words = [
        "plan",
        f"{tmp_path}/recurrent.py:make",
        "-i",
        "1,3,16,16",
        "--scheme",
        "bireal",
        "--target",
        "c",
    ]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "160"})
    assert done.exit_code == 2
    assert "1 of 4 layers binary" in done.stdout
    assert "plan --target c: the model could not be exported as it is" in done.stderr
    assert "cells: gru has no C code" in done.stderr and "sort: sort has no C code" in done.stderr
    other = CliRunner().invoke(app, [*words[:-1], "cc"])
    assert other.exit_code == 2 and 'did you mean "c"?' in other.stderr
