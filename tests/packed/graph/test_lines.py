"""Nonlinearities of the user's own in packed files and exported: by the lines that they say, or refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.binarizers.nonlinearity import PiecewiseLinear

X = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 16, 3), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 5),
    )  # fmt: skip


def saved(part: str, folder: Path) -> tuple[nn.Module, Path]:
    rules = {
        "schema": 1,
        "name": "own",
        "extends": "bireal",
        "scheme": {"nonlinearity": {"part": f"own_parts.{part}"}},
    }
    model = binarize.convert(network(), rules=rules, input_shape=(2, 2, 8, 8))
    found = [module for module in model.modules() if type(module).__name__ == part]
    assert len(found) == 2
    for module in found:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    return model.eval(), binarize.save(model, folder / "net")


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(X)


@pytest.mark.parametrize("part", ["Shifted", "Clipped", "Steep"])
def test_a_packed_file_needs_no_code_of_the_users(part: str, tmp_path: Path) -> None:
    model, folder = saved(part, tmp_path)
    with binarize.trusting("own_parts"):
        packing = binarize.pack(folder, model=network())
    expected = answers(binarize.freeze(model))
    assert packing.needs is None
    alone = shutil.copy(packing.path, tmp_path / "alone.safetensors")
    loaded = binarize.load_packed(alone)
    assert sum(isinstance(module, PiecewiseLinear) for module in loaded.modules()) == 2
    assert torch.equal(answers(loaded), expected)
    assert torch.equal(answers(binarize.fuse(loaded, X)), expected)
    with binarize.trusting("own_parts"):
        of_the_class = binarize.load_packed(folder, model=network())
    assert torch.equal(answers(of_the_class), expected)


@pytest.mark.parametrize(
    "part, words",
    [
        ("Silent", "Sequential cannot be traced as a whole (1, a Silent: "),
        ("ForgotShift", "1: ForgotShift.piecewise() is not its forward"),
    ],
)
def test_without_lines_the_file_says_that_it_needs_its_folder(part: str, words: str, tmp_path: Path) -> None:
    model, folder = saved(part, tmp_path)
    with binarize.trusting("own_parts"):
        packing = binarize.pack(folder, model=network())
    assert packing.needs is not None and packing.needs.startswith(words)
    with binarize.trusting("own_parts"):
        loaded = binarize.load_packed(folder, model=network())
    assert torch.equal(answers(loaded), answers(binarize.freeze(model)))
    assert torch.equal(answers(binarize.fuse(loaded, X)), answers(loaded))


@pytest.mark.parametrize("part", ["Shifted", "Clipped", "Steep", "Halved", "Silent", "ForgotShift"])
def test_c_is_made_of_the_lines_or_of_what_its_forward_does(part: str, tmp_path: Path) -> None:
    model, _ = saved(part, tmp_path)
    done = binarize.export(model, "c", tmp_path / "net.c")
    assert any("bit for bit" in line for line in done.written.lines) or done.written.warnings
