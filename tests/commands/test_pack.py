"""`binarize pack`: what it shows, what it writes, which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nets
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import binarize
from binarize.cli import app


def run(*words: str | Path) -> Result:
    """One command in this process; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three binary layers with batch norms between them, of torch's own modules alone."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))
    binary = binarize.convert(model, "bnn", example_input=nets.pictures(8, size=8))
    return binarize.save(binary, tmp_path_factory.mktemp("saved") / "net")


def test_pack_writes_the_file_and_says_what_it_takes(folder: Path) -> None:
    result = run("pack", folder, "--force")
    assert result.exit_code == 0, result.stderr
    size = (folder / "packed.safetensors").stat().st_size
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[:5]}
    assert list(rows) == ["float", "latent", "int8", "theory", "packed"]
    assert f"{size / 1024:.2f} KiB" in rows["packed"]
    assert "over theory" in rows["packed"]
    assert "3 packed layers; 3 BatchNorms behind them folded, read back bit for bit." in result.stdout
    drift = (
        r"Against the trained model on 4 random inputs: same class on [\d.]+ %, \d+ of 12,288 signs differ\."
    )
    assert re.search(drift, result.stdout)
    assert f"wrote {folder}/packed.safetensors" in result.stderr.replace("\n", "")
    assert "the file is the whole model: binarize.load_packed needs nothing else" in result.stderr
    binarize.load_packed(folder)


def test_pack_as_json(folder: Path) -> None:
    result = run("pack", folder, "--force", "--rest", "int8", "--json")
    document = json.loads(result.stdout)
    assert document["rest"] == "int8"
    assert document["path"] == str(folder / "packed.safetensors")
    assert document["sizes"]["file"] == (folder / "packed.safetensors").stat().st_size
    drift = document["drift"]
    assert (drift["inputs"], drift["signs"]) == (4, 12288)
    assert 0 < drift["turned"] <= 0.05 * drift["signs"] and 0 <= drift["same_top1"] <= 1
    assert document["frozen"]["folded"] == {"3": "4", "6": "7", "9": "10"}
    assert document["needs"] is None


def test_a_smaller_rest_makes_a_smaller_file(folder: Path) -> None:
    sizes = []
    for rest in ("fp32", "fp16", "int8"):
        assert run("pack", folder, "--force", "--rest", rest).exit_code == 0
        sizes.append((folder / "packed.safetensors").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] and sizes[1] > 1.5 * sizes[2]


def test_what_is_there_is_replaced_only_by_force(folder: Path) -> None:
    run("pack", folder, "--force")
    result = run("pack", folder)
    assert result.exit_code == 2
    assert "packed.safetensors exists already; --force" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("no-such-folder",), 4, "no-such-folder: no such folder"),
        ((".", "--rest", "fp61"), 2, '--rest "fp61" is none of fp32, fp16, int8; did you mean "fp16"?'),
        ((), 2, "DIR"),
    ],
)
def test_what_cannot_be_packed_says_why(words: tuple[str, ...], code: int, message: str) -> None:
    result = run("pack", *words)
    assert result.exit_code == code
    assert message in result.stderr


def test_a_model_of_ones_own_class_takes_a_source(tmp_path: Path) -> None:
    model = nets.seeded(nets.ConvBnRelu)
    binary = binarize.convert(model, "adabin", example_input=nets.example(model, 8))
    folder = binarize.save(binary, tmp_path / "net")
    result = run("pack", folder)
    assert result.exit_code == 4
    assert "the float model's class is your own" in result.stderr
    result = run("pack", folder, "--source", f"{nets.__file__}:ConvBnRelu")
    assert result.exit_code == 0, result.stderr


def test_a_layer_that_stays_trained_is_a_warning(tmp_path: Path) -> None:
    rules = [{"match": {"name": "3"}, "use": "bnn", "with": {"input": "xnor.MappedSign"}}]
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)]
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), layers[0], nn.ReLU(), layers[1], nn.Flatten(), nn.Linear(576, 10)
    )
    binary = binarize.convert(model, "bnn", rules=rules, example_input=nets.pictures(8, size=8))
    folder = binarize.save(binary, tmp_path / "net")
    said = " ".join(run("pack", folder).stderr.split())
    assert "3 stays as it was trained: MappedSign multiplies by a map of its input" in said
    # A trained layer is no module of a packed graph, so that the file alone is no model.
    assert f"reading it takes {folder} as well: " in said and "module of the closed list" in said
    with torch.no_grad():
        assert binarize.load_packed(folder)(nets.pictures(3, size=8)).shape == (3, 10)
