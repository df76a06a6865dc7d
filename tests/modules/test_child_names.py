"""A model whose parts cannot be reached by their names is refused by the name; every other name is taken."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import binarize
from binarize.errors import SourceError
from binarize.layers.layer import BinaryLayer
from binarize.packed.packing import fuse
from binarize.sources import load


def held(name: str, table: str = "_modules") -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential())
    getattr(model[1], table)[name] = nn.Linear(2, 2) if table == "_modules" else nn.Parameter(torch.ones(2))
    return model


@pytest.mark.parametrize("table", ["_modules", "_parameters"])
@pytest.mark.parametrize(
    "name",
    ["", "a.b", ".", "forward", "training", "_modules", "T_destination", "train", "__class__", "\ud800"],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, table: str) -> None:
    with pytest.raises(SourceError, match="a child of '1' is named ") as caught:
        load(held(name, table))
    assert str(caught.value).isascii() and ascii(name) in str(caught.value)


def test_a_child_over_a_property_is_refused_without_running_it() -> None:
    class Mine(nn.Module):
        @property
        def head(self) -> nn.Module:
            raise AssertionError

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = Mine()
    model._modules["head"] = nn.Linear(2, 2)
    with pytest.raises(SourceError, match="a part of the model is named 'head', and Mine has something else"):
        load(model)


ODD = ["class", 'a"b', "a\\", "日本", "weight", '1"), [][0], getattr(self, "1']


class Odd(nn.Module):
    """A block whose layer has such a name, for each of the names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Linear(32, 4)
        self.blocks = nn.ModuleList(nn.Module() for _ in names)
        for block, name in zip(self.blocks, names):
            block.add_module(name, nn.Conv2d(32, 32, 3, padding=1))
            block.add_module("norm", nn.BatchNorm2d(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        for block, name in zip(self.blocks, self.names):
            x = x + block.norm(block._modules[name](x)).relu()
        return self.head(x.mean((2, 3)))


def test_any_other_name_is_taken_from_end_to_end(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = binarize.convert(
        Odd(ODD).eval(), "reactnet", shortcuts="every", example_input=x, calibrate=False
    ).eval()
    layers = [block._modules[name] for block, name in zip(model.blocks, ODD)]
    assert all(isinstance(layer, BinaryLayer) for layer in layers)
    folder = binarize.save(model, tmp_path / "net", reports=())
    assert torch.equal(binarize.load(folder, model=Odd(ODD))(x), model(x))
    binarize.pack(folder, model=Odd(ODD))
    with torch.no_grad():
        by_class = binarize.load_packed(folder, model=Odd(ODD))(x)
        # Without the folder nothing but the graph in the file makes the model.
        (tmp_path / "alone.safetensors").write_bytes((folder / "packed.safetensors").read_bytes())
        alone = binarize.load_packed(tmp_path / "alone.safetensors")
        assert torch.equal(alone(x), by_class) and torch.equal(copy.deepcopy(alone)(x), by_class)
        assert torch.equal(pickle.loads(pickle.dumps(alone))(x), by_class)
        torch.testing.assert_close(fuse(alone, x)(x), by_class, rtol=1e-4, atol=1e-4)


def test_a_name_of_two_lines_is_taken_too(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, 8)
    model = binarize.convert(
        Odd(["a\nb"]).eval(), "adabin", shortcuts="every", example_input=x, calibrate=False
    )
    folder = binarize.save(model, tmp_path / "net", reports=())
    binarize.pack(folder, model=Odd(["a\nb"]))
    assert torch.equal(binarize.load(folder, model=Odd(["a\nb"]))(x), model.eval()(x))
    with torch.no_grad():
        assert binarize.load_packed(folder, model=Odd(["a\nb"]))(x).shape == (2, 4)
