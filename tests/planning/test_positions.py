"""`position: before_add`: the nonlinearity bends a layer's own value, and what is added stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from plans import plan_of
from torch import Tensor, nn

import binarize
from binarize.rules.load import load_rule_set

Position = str


def converted(make: Any, position: Position, mode: str, scheme: str = "adabin") -> Any:
    model = nets.seeded(make)
    rules = [f"body.with={{nonlinearity: {{position: {position}}}}}"]
    return binarize.convert(
        model, scheme, shortcuts=mode, overrides=rules, example_input=nets.pictures(), calibrate=False
    ).eval()


def words(make: Any, mode: str, position: Position = "before_add") -> dict[str, str]:
    """Layer -> what became of the activation in front of it."""
    override = f"body.with={{nonlinearity: {{position: {position}}}}}"
    plan = plan_of(make(), load_rule_set("adabin", shortcuts=mode, overrides=[override]))
    return {d.layer.name: d.activation for d in plan.binarized}


MOVED = "ReLU -> adabin.Maxout before the add"


@pytest.mark.parametrize(
    "net, mode, expected",
    [
        (nets.ConvBnRelu, "missing", {"layers.6": MOVED}),
        (nets.ConvRelu, "missing", {"features.5": MOVED, "classifier.3": MOVED}),
        (nets.SharedRelu, "missing", {"conv2": MOVED}),
        (nets.NormActivation, "missing", {"conv2": MOVED}),
        (nets.BasicBlocks, "never", {"blocks.0.conv2": "ReLU -> adabin.Maxout", "blocks.1.conv1": MOVED}),
        (nets.BasicBlocks, "every", {"blocks.0.conv2": MOVED, "blocks.1.conv1": MOVED}),
        (
            nets.Dense,
            "every",
            {"convs.0": "dropped F.relu, adabin.Maxout behind the new norm, before the add"},
        ),
        # No add stands in front of these.
        (nets.ConvBnRelu, "never", {"layers.6": "ReLU -> adabin.Maxout"}),
        # Its nonlinearity stays: the float layer behind it reads it.
        (nets.FeedsFloat, "missing", {"conv1": "kept ReLU"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_plan_says_which_nonlinearities_stand_before_an_add(
    net: Any, mode: str, expected: dict[str, str]
) -> None:
    found = words(net, mode)
    assert {name: found[name] for name in expected} == expected
    assert not any("before the add" in word for word in words(net, mode, "after_add").values())


def test_behind_an_inserted_shortcut_the_sum_is_read_as_it_is() -> None:
    model = converted(nets.ConvBnRelu, "before_add", "missing")
    layers = model.layers
    seen: list[Tensor] = []
    layers[6].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    with torch.no_grad():
        stem = layers[2](layers[1](layers[0](nets.pictures(2))))
        expected = layers[5](layers[4](layers[3](stem))) + stem
        model(nets.pictures(2))
    assert torch.equal(seen[0], expected)


def test_a_residual_add_reads_the_bent_branch() -> None:
    model = converted(nets.BasicBlocks, "before_add", "never")
    block, x = model.blocks[0], torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        y = block.conv1.activation(block.bn1(block.conv1(x)))
        expected = block.conv2.activation(block.bn2(block.conv2(y))) + x
        assert torch.equal(block(x.clone()), expected)


def test_a_rewired_block_bends_every_layers_own_value() -> None:
    """a1 = act1(norm1(conv1(x))) + x; out = act2(norm2(conv2(a1))) + a1."""
    model = converted(nets.BasicBlocks, "before_add", "every")
    block, x = model.blocks[0], torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        a1 = block.conv1.activation(block.bn1(block.conv1(x))) + x
        expected = block.conv2.activation(block.bn2(block.conv2(a1))) + a1
        assert torch.equal(block(x.clone()), expected)


class PoolBetween(nets.Body):
    """conv - norm - pool - ReLU: the pool stands between the add and the nonlinearity."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nets.conv(), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.ReLU(), nets.conv(), nn.BatchNorm2d(16)
        )

    def run(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_a_nonlinearity_behind_a_pool_moves_in_front_of_add_and_pool() -> None:
    model = converted(PoolBetween, "before_add", "missing")
    layers, x = model.layers, torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        a = layers[2](layers[3](layers[1](layers[0](x))) + x)
        assert torch.equal(layers(x), layers[5](layers[4](a)) + a)


class ReadTwice(nets.Body):
    """The norm's value is read beside the ReLU: without the add the other reader would lose its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.conv2, self.conv3 = (
            nets.conv(), nn.BatchNorm2d(16), nn.ReLU(), nets.conv(), nets.conv()
        )  # fmt: skip

    def run(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        return torch.cat([self.conv2(self.relu(y)), self.conv3(y)], 1)[:, ::2]


def test_a_value_with_another_reader_keeps_its_add_in_front() -> None:
    assert words(ReadTwice, "missing")["conv2"] == "ReLU -> adabin.Maxout"


class Unreachable(nets.Body):
    """The block cannot be opened, so that only the ReLU behind it can be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.relu, self.conv = Closed(), nn.ReLU(), nets.conv()

    def run(self, x: Tensor) -> Tensor:
        return self.conv(self.relu(self.block(x)))


class Closed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nets.conv(), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return y if float(y.detach().sum()) == 0.5 else y * 1


def test_where_the_graph_cannot_be_edited_it_stays_behind_the_add() -> None:
    assert words(Unreachable, "missing")["conv"] == "ReLU -> adabin.Maxout"


def bent(net: Any, position: Position, mode: str, scheme: str) -> Any:
    """A converted network whose nonlinearities are no ReLU any more."""
    model = converted(net, position, mode, scheme)
    new = [module for module in model.modules() if type(module).__name__ in ("RPReLU", "Maxout")]
    with torch.no_grad():
        for parameter in (parameter for module in new for parameter in module.parameters()):
            parameter.add_(torch.linspace(0.1, 0.4, parameter.numel()).view_as(parameter))
    return model


@pytest.mark.parametrize(
    "net, mode, scheme",
    [(nets.BasicBlocks, "every", "adabin"), (nets.Dense, "every", "reactnet")],
)  # fmt: skip
def test_every_form_computes_the_same(net: Any, mode: str, scheme: str, tmp_path: Path) -> None:
    """Latent, loaded, frozen, packed (with its folder and alone), fused, C and ONNX."""
    model, x = bent(net, "before_add", mode, scheme), nets.pictures(2)
    folder = binarize.save(model, tmp_path / "net")
    binarize.pack(folder, model=nets.seeded(net))
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((folder / "packed.safetensors").read_bytes())
    with torch.no_grad():
        assert not torch.equal(model(x), bent(net, "after_add", mode, scheme)(x))
        assert torch.equal(binarize.load(folder, model=nets.seeded(net))(x), model(x))
        frozen = binarize.freeze(model, x)(x)
        torch.testing.assert_close(frozen, model(x), rtol=1e-4, atol=1e-4)
        packed = binarize.load_packed(alone)
        assert torch.equal(packed(x), frozen)
        torch.testing.assert_close(binarize.fuse(packed, x)(x), frozen, rtol=1e-5, atol=1e-5)
    # Exporters run what they wrote and compare it with the packed model.
    for form in ("c", "onnx") if net is nets.Dense else ("c",):
        binarize.export(alone, form, tmp_path / form)
