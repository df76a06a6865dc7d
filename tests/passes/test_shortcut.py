"""Graphs before and after shortcuts were added, and that they compute what was drawn."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.capture import trace_container
from binarize.errors import RewriteError
from binarize.passes.rewrite import edit_graph
from binarize.planning.record.edit_kinds import (
    AddShortcut,
    AddValue,
    GraphEdit,
    ReplaceActivation,
    ReplaceOperand,
)


def edited(module: nn.Module, *edits: GraphEdit) -> torch.fx.Graph:
    """The graph of `module` after some edits."""
    graph = trace_container(module, {})
    for edit in edits:
        edit_graph(graph, module, edit)
    graph.lint()
    return graph


def steps(graph: torch.fx.Graph) -> list[str]:
    """Every call with what it reads."""
    return [
        f"{node.name}({', '.join(str(i) for i in node.all_input_nodes)})"
        for node in graph.nodes
        if node.op.startswith("call")
    ]


def runs(module: nn.Module, graph: torch.fx.Graph, *args: Tensor) -> Tensor:
    return torch.fx.Interpreter(module, graph=graph).run(*args)


class Chain(nn.Module):
    """x -> layer -> norm -> in-place ReLU; the layer carries a shortcut and an activation for the passes to use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.relu = nets.conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer.shortcut, self.layer.activation = nn.AvgPool2d(1), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.layer(x)))


@pytest.mark.parametrize("activation", [False, True])
def test_a_shortcut_is_added_behind_the_norm(activation: bool) -> None:
    module, x = Chain().eval(), torch.randn(2, 4, 5, 5)
    graph = edited(module, AddShortcut("", "layer", "norm", "layer", activation))
    behind = ["layer_activation(add)", "relu(layer_activation)"] if activation else ["relu(add)"]
    assert steps(graph) == [
        "layer(x)",
        "norm(layer)",
        "layer_shortcut(x)",
        "add(norm, layer_shortcut)",
        *behind,
    ]
    with torch.no_grad():
        total = module.norm(module.layer(x)) + x
        expected = F.relu(total.tanh() if activation else total)
        assert torch.equal(runs(module, graph, x), expected)


class Overwriting(nn.Module):
    """Its input is overwritten after the layer has read it, in each of the ways one writes that."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.layer, self.norm, self.relu = nets.conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.layer.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5
        y = self.layer(x)
        if self.how == "module":
            z = self.relu(x)
        elif self.how == "function":
            z = F.relu(x, inplace=True)
        elif self.how == "method":
            z = x.relu_()
        elif self.how == "trailing":
            z = F.relu_(x)
        elif self.how == "add":
            x += 1.0
            z = x
        else:
            x *= 2.0
            z = x
        return self.norm(y) + 0 * z


@pytest.mark.parametrize("how", ["module", "function", "method", "trailing", "add", "mul"])
def test_a_tapped_value_is_not_overwritten_any_more(how: str) -> None:
    module, x = Overwriting(how).eval(), torch.randn(2, 4, 5, 5)
    graph = edited(module, AddShortcut("", "layer", "norm", "layer"))
    with torch.no_grad():
        expected = module.norm(module.layer(x + 0.5)) + (x + 0.5)
        torch.testing.assert_close(runs(module, graph, x.clone()), expected, rtol=0, atol=1e-6)


class LateProjection(nn.Module):
    """The value to add is computed behind the place where it is to be added."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.layer2, self.down = (
            nets.conv(4, 4),
            nn.BatchNorm2d(4),
            nets.conv(4, 4),
            nets.conv(4, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer2(F.relu(self.norm(self.layer(x))))
        identity = self.down(x) * 2
        y += identity
        return y


def test_a_value_computed_later_is_moved_in_front() -> None:
    module, x = LateProjection().eval(), torch.randn(2, 4, 5, 5)
    graph = edited(module, AddValue("", "layer", "norm", "mul"))
    assert steps(graph) == [
        "layer(x)",
        "down(x)",
        "mul(down)",
        "norm(layer)",
        "add_1(norm, mul)",
        "relu(add_1)",
        "layer2(relu)",
        "add(layer2, mul)",
    ]
    with torch.no_grad():
        twice = module.down(x) * 2
        expected = module.layer2(F.relu(module.norm(module.layer(x)) + twice)) + twice
        assert torch.equal(runs(module, graph, x), expected)


def test_the_outer_add_takes_another_operand() -> None:
    module = LateProjection()
    graph = edited(module, ReplaceOperand("", "add", "mul", "relu"))
    assert steps(graph)[-1] == "add(layer2, relu)"


@pytest.mark.parametrize(
    "edit", [AddShortcut("", "layer", "norm9", "layer"), ReplaceActivation("", "relu9", None)]
)
def test_a_graph_that_was_not_planned_for_is_an_error(edit: GraphEdit) -> None:
    with pytest.raises(RewriteError, match=f"{edit.op}: the container's graph has no node '(norm|relu)9'"):
        edited(Chain(), edit)


def test_a_rewired_block_computes_one_shortcut_a_layer() -> None:
    """y1 = norm1(conv1(x)) + S(x), a1 = act1(y1); out = act2(norm2(conv2(a1)) + a1)."""
    model = nets.seeded(nets.BasicBlocks)
    x = nets.pictures(4)
    model = binarize.convert(model, "adabin", shortcuts="every", example_input=x)
    block = model.blocks[1]
    u = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        y1 = block.bn1(block.conv1(u)) + block.downsample(u)
        a1 = block.conv1.activation(y1)
        # The last activation feeds the float head alone and stays a ReLU.
        expected = F.relu(block.bn2(block.conv2(a1)) + a1)
        assert torch.equal(block(u.clone()), expected)


def test_a_preactivation_block_is_rewired_through_its_new_norms() -> None:
    """y1 = conv1(b1) + x with b1 = bn1(x) [ReLU dropped]; y2 = norm(conv2(a2)) + a2 with a2 = act(bn2(y1) + x)."""
    model = nets.seeded(nets.PreActivation)
    model = binarize.convert(model, "adabin", shortcuts="every", example_input=nets.pictures(8))
    block = model.blocks[1]
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        a2 = block.conv1.activation(block.bn2(block.conv1(block.bn1(x))) + x)
        expected = a2 + block.conv2(a2)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-6)


def test_one_shortcut_a_layer_keeps_the_size_of_values() -> None:
    """With the outer add kept beside the new shortcuts each block would double what runs through it."""

    class Deep(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*[nets.BasicBlock(16, 16, 1) for _ in range(8)])

        def run(self, x: Tensor) -> Tensor:
            return self.blocks(F.relu(x))

    x = nets.pictures(8)
    model = binarize.convert(nets.seeded(Deep), "adabin", shortcuts="every", example_input=x)
    sizes: list[float] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, output: sizes.append(output.std().item()))
    with torch.no_grad():
        model(x)
    # Two shortcuts a block add two values of unit size each time: sqrt(1 + 16) at the most, 2^8 with doubling.
    assert max(sizes) < 8


class Unbent(nn.Module):
    """conv1 - bn1 - conv2 - bn2 - conv3 - bn3 - (+) without an activation: the norm is what the next layer reads."""

    def __init__(self) -> None:
        super().__init__()
        for i in (1, 2, 3):
            self.add_module(f"conv{i}", nets.conv())
            self.add_module(f"bn{i}", nn.BatchNorm2d(16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return self.bn3(self.conv3(y)) + x


class UnbentNet(nets.Body):
    def __init__(self) -> None:
        super().__init__()
        self.block = Unbent()

    def run(self, x: Tensor) -> Tensor:
        return self.block(x)


def test_a_rewired_layer_adds_what_it_reads_an_earlier_add_included() -> None:
    """y1 = bn1(conv1(x)) + x; y2 = bn2(conv2(y1)) + y1; out = bn3(conv3(y2)) + y2."""
    model = nets.seeded(UnbentNet)
    model = binarize.convert(model, "bireal", shortcuts="every", example_input=nets.pictures())
    block, x = model.block, torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        y1 = block.bn1(block.conv1(x)) + x
        y2 = block.bn2(block.conv2(y1)) + y1
        assert torch.equal(block(x), block.bn3(block.conv3(y2)) + y2)


def test_plans_of_earlier_versions_add_the_node_that_they_name() -> None:
    """Such a plan says nothing of sums: what was saved with it is computed as it was trained."""
    edits = (AddValue("", "conv1", "bn1", "x"), AddValue("", "conv2", "bn2", "bn1"))
    assert "add_2(bn2, bn1)" in steps(edited(Unbent(), *edits))
    later = (edits[0], AddValue("", "conv2", "bn2", "bn1", summed=True))
    assert "add_2(bn2, add_1)" in steps(edited(Unbent(), *later))
