"""Folders, packed files and pickled models of format 3 and packed format 1 load with the outputs they had."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import older_nets
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import binarize
from binarize.checkpoint.fingerprint import machine
from binarize.demo.digits import load_digits

OLDER = Path(__file__).parent / "data" / "older"
OUTPUTS = load_file(OLDER / "outputs.safetensors")
NETS: dict[str, type[nn.Module]] = {
    "plain-adabin": older_nets.Plain,
    "plain-reactnet": older_nets.Plain,
    "gated-bireal": older_nets.Gated,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The files were written by one thread; last digits may depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written_by() -> dict[str, Any]:
    record = json.loads((OLDER / "plain-adabin" / "binarize.json").read_text())
    return record["fingerprint"]["machine"]


@torch.no_grad()
def assert_outputs(model: nn.Module, name: str) -> None:
    """Bit-equal on a machine like the one that wrote the files; elsewhere last digits may flip a sign."""
    output: Tensor = model.eval()(load_digits().held_out_images[:16])
    if machine() == written_by():
        assert torch.equal(output, OUTPUTS[name])
    else:
        agreeing = (output.argmax(1) == OUTPUTS[name].argmax(1)).float().mean()
        assert agreeing >= 0.75


@pytest.mark.parametrize("name", NETS)
def test_a_folder_loads_bit_equal(name: str) -> None:
    model = binarize.load(OLDER / name, model=NETS[name]())
    stored = load_file(OLDER / name / "model.safetensors")
    found = model.state_dict()
    assert stored and all(torch.equal(found[key], value) for key, value in stored.items())
    model.ready = True
    assert_outputs(model, name)


def test_a_packed_file_loads_bit_equal() -> None:
    assert_outputs(binarize.load_packed(OLDER / "digits-adabin-packed.safetensors"), "digits-adabin-packed")


def test_a_pickled_model_loads_bit_equal() -> None:
    model = torch.load(OLDER / "plain-reactnet.pickle", weights_only=False)
    assert isinstance(model, older_nets.Plain)
    assert_outputs(model, "plain-reactnet")


def test_a_pickled_model_is_saved_with_all_its_edits(tmp_path: Path) -> None:
    model = torch.load(OLDER / "plain-reactnet.pickle", weights_only=False)
    folder = binarize.save(model, tmp_path / "net")
    assert_outputs(binarize.load(folder, model=older_nets.Plain()), "plain-reactnet")
