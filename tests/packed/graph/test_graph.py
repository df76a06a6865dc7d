"""Graphs as data: what a packed model computes comes back bit for bit, without its class and with its names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from test_laws import assert_equal
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import binarize
from binarize.errors import UsageError
from binarize.packed.file.contents import alone, contents_of
from binarize.packed.file.format import PackedModel, read_file, write_file
from binarize.packed.freeze import freeze, frozen_record, pack_layers
from binarize.packed.graph.lines import with_lines
from binarize.packed.graph.trace import graph_of
from binarize.packed.layers import PackedLayer

Converted = Callable[..., nn.Module]


def packed_of(model: nn.Module) -> nn.Module:
    assert isinstance(model, nets.Net)
    return pack_layers(freeze(model, (model.arguments(4), model.keywords(4))))


def contents_with_graph(packed: nn.Module) -> PackedModel:
    """What the file of a packed model holds, its graph too."""
    assert isinstance(packed, nets.Net)
    found = graph_of(packed, packed.arguments(4), packed.keywords(4))
    assert not isinstance(found, str), found
    contents = contents_of(packed, loose=found[1])
    return replace(contents, about={**contents.about, "graph": found[0]})


def stored(contents: PackedModel, folder: Path) -> PackedModel:
    write_file(folder / "packed.safetensors", contents)
    return read_file(folder / "packed.safetensors")


def leaves(model: nn.Module, owner: nets.Net, n: int) -> list[Tensor]:
    with torch.no_grad():
        output = model(*owner.arguments(n), **owner.keywords(n))
    return [value for value in pytree.tree_leaves(output) if isinstance(value, Tensor)]


def check_alone(packed: nn.Module, folder: Path) -> nn.Module:
    assert isinstance(packed, nets.Net)
    built = alone(stored(contents_with_graph(packed), folder))
    for n in (4, 1, 5):
        assert_equal(leaves(packed, packed, n), leaves(built, packed, n))
    return built


# Names of networks of no whole graph -> why.
NONE = {
    "DataDependent": "depends on the numbers in a tensor",
    "Structured": "calls nets.Answer, which is not on the closed list",
}


@pytest.mark.parametrize("name", [name for name in nets.ALL if name not in NONE])
def test_a_network_stands_alone(name: str, converted: Converted, tmp_path: Path) -> None:
    built = check_alone(packed_of(converted(name)), tmp_path)
    own = (nets.Net, binarize.layers.layer.BinaryLayer)
    assert not any(isinstance(module, own) or "nets" in type(module).__module__ for module in built.modules())


@pytest.mark.parametrize("scheme", nets.PACKABLE)
@pytest.mark.sampled(12)
def test_every_scheme_stands_alone(scheme: str, converted: Converted, tmp_path: Path) -> None:
    packed = with_lines(packed_of(converted("BasicBlocks", scheme)))
    built = check_alone(packed, tmp_path)
    assert frozen_record(built) == frozen_record(packed)


@pytest.mark.parametrize("name", list(NONE))
def test_a_network_without_a_whole_graph_says_why(name: str, converted: Converted) -> None:
    packed = packed_of(converted(name))
    assert isinstance(packed, nets.Net)
    before = set(vars(packed))
    found = graph_of(packed, packed.arguments(4), packed.keywords(4))
    assert isinstance(found, str)
    assert re.search(NONE[name], found), found
    assert set(vars(packed)) == before


# --- models whose code does something else than call modules


class Loose(nets.Body):
    """Reads tensors that no state dict holds, a weight twice, and sizes; takes arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nets.conv(), nets.conv()
        self.register_buffer("mask", torch.linspace(0, 1, 16).view(1, 16, 1, 1), persistent=False)
        self.plain = torch.linspace(1, 2, 16).view(16, 1, 1)

    def forward(self, x: Tensor, power: int = 2, mode: str = "none", *, extra: Tensor | None = None) -> Any:
        y = self.stem(x) * self.mask + self.plain * torch.tensor([[[0.5]]])
        y = self.conv2(F.relu(self.conv1(F.relu(y))))
        y = y.view(y.size(0), y.shape[1], -1)[..., ::2].mean(-1) ** power
        tied = F.linear(y, self.head.fc.weight * 2)
        return {"scores": [self.head.fc(y), (tied, float("inf"))], "mode": mode}


def loose_pack() -> nn.Module:
    model = nets.seeded(Loose)
    return packed_of(binarize.convert(model, "bireal", example_input=nets.example(model)))


def test_loose_tensors_sizes_and_structures_come_back(tmp_path: Path) -> None:
    packed = loose_pack()
    before = set(vars(packed))
    built = check_alone(packed, tmp_path)
    assert set(vars(packed)) == before
    with torch.no_grad():
        output = built(nets.pictures(2))
    assert output["mode"] == "none" and output["scores"][1][1] == float("inf")


def test_an_argument_that_the_trace_fixed_takes_no_other_value(tmp_path: Path) -> None:
    built = check_alone(loose_pack(), tmp_path)
    x = nets.pictures(2)
    with torch.no_grad():
        assert_equal([built(x)["scores"][0]], [built(x, power=2, mode="none", extra=None)["scores"][0]])
        for changed in ({"power": 3}, {"extra": x}, {"mode": "other"}):
            with pytest.raises(UsageError, match=r"was .* in the example"):
                built(x, **changed)


@pytest.mark.parametrize("rest", ["fp16", "int8"])
def test_a_rounded_rest_leaves_loose_tensors_as_they_are(rest: Any, tmp_path: Path) -> None:
    packed = loose_pack()
    found = graph_of(packed, (nets.pictures(4),), {})
    assert not isinstance(found, str)
    contents = contents_of(packed, rest, found[1])
    write_file(tmp_path / "file", replace(contents, about={**contents.about, "graph": found[0]}), rest)
    built = alone(read_file(tmp_path / "file"))
    assert isinstance(packed, nets.Net)
    assert_equal(leaves(packed, packed, 3), leaves(built, packed, 3))


def test_channels_last_and_half_come_back(converted: Converted, tmp_path: Path) -> None:
    for change in ({"memory_format": torch.channels_last}, {"dtype": torch.float16}):
        model: Any = converted("BasicBlocks", "bireal").to(**change)
        dtype = model.get_parameter("stem.weight").dtype
        assert isinstance(model, nets.Net)
        packed = pack_layers(freeze(model, ((nets.pictures(4).to(dtype),), {})))
        built = alone(stored(contents_with_graph(packed), tmp_path))
        assert built.get_parameter("stem.weight").stride() == packed.get_parameter("stem.weight").stride()
        x = nets.pictures(3).to(dtype)
        with torch.no_grad():
            assert_equal([packed(x)], [built(x)])


def test_what_stands_alone_is_copied_exported_and_compiled_like_a_model(
    converted: Converted, tmp_path: Path
) -> None:
    packed = packed_of(converted("BasicBlocks"))
    built = check_alone(packed, tmp_path)
    x = nets.pictures(3)
    with torch.no_grad():
        expected = built(x)
        twin = copy.deepcopy(built)
        assert frozen_record(twin) == frozen_record(built)
        assert_equal([expected], [twin(x)])
        exported = torch.export.export(built, (x,)).module()
        assert_equal([expected], [exported(x)])
    assert not any(p.requires_grad for p in built.parameters())
    assert not any(module.training for module in built.modules())


def test_layers_inside_of_attention_are_no_reason_to_guess(tmp_path: Path) -> None:
    """A module whose child was replaced is not what its constructor makes."""

    class Attends(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nets.conv()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def run(self, x: Tensor) -> Tensor:
            tokens = self.conv1(F.relu(x)).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].transpose(1, 2)[..., None]

    model = nets.seeded(Attends)
    packed = packed_of(
        binarize.convert(model, "bireal", keep=["attention"], example_input=nets.example(model))
    )
    check_alone(packed, tmp_path)
    attention = packed.get_submodule("attention")
    attention.out_proj = nn.Sequential(attention.get_submodule("out_proj"))
    assert isinstance(packed, nets.Net)
    found = graph_of(packed, packed.arguments(4), {})
    assert isinstance(found, str) and "Attends cannot be traced as a whole" in found


def test_names_that_are_no_identifiers_stay_names(tmp_path: Path) -> None:
    class Hyphens(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential()
            self.blocks.add_module("block1-0", nn.Sequential(nn.ReLU(), nets.conv()))

        def run(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    model = nets.seeded(Hyphens)
    packed = packed_of(binarize.convert(model, "reactnet", example_input=nets.example(model)))
    built = check_alone(packed, tmp_path)
    assert isinstance(built.get_submodule("blocks.block1-0.1"), PackedLayer)
