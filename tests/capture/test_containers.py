"""The smallest module around an edit, opened and verified."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.capture import TraceError, capture, common_container, open_container


def opened(model: nets.Net, path: str, *children: str) -> Any:
    graph = capture(model, model.arguments(), model.keywords())
    return graph.evaluation, open_container(graph, graph.evaluation, path, children)


def test_the_common_container_is_the_innermost_one_and_names_what_to_open() -> None:
    root, blocks = ("", 0), ("blocks", 0)
    first, second = ("blocks.0", 0), ("blocks.1", 0)
    assert common_container([(root, blocks, first), (root, blocks, first)]) == ("blocks.0", set())
    assert common_container([(root, blocks, first), (root, blocks, second)]) == ("blocks", {"0", "1"})
    assert common_container([(root, blocks), (root, ("head", 0))]) == ("", {"blocks", "head"})
    # Two calls of one module have only what is around both in common.
    assert common_container([(root, ("block", 0)), (root, ("block", 1))]) == ("", {"block"})


def test_recorded_steps_are_found_again_in_the_graph() -> None:
    recording, container = opened(nets.BasicBlocks(), "blocks.1")
    inside = recording.inside("blocks.1")
    assert container.node_for(inside[0]).target == "conv1"
    # What a closed child returns is the child's node, what it computes on the way is hidden.
    projection = [step for step in inside if "downsample" in str(step.target)]
    assert container.node_for(projection[-1]).target == "downsample"
    with pytest.raises(TraceError, match="Conv2d is hidden inside downsample"):
        container.node_for(projection[0])


def test_values_from_outside_are_the_arguments() -> None:
    recording, container = opened(nets.BasicBlocks(), "blocks.1")
    before = recording.inside("blocks.0")[-1]
    assert container.node_for(before).op == "placeholder"
    with pytest.raises(TraceError, match=r"is not part of blocks\.1"):
        container.node_for(recording.inside("blocks.0")[0])


def test_opened_children_show_their_steps() -> None:
    recording, container = opened(nets.BasicBlocks(), "blocks", "0")
    step = next(step for step in recording.inside("blocks.0") if step.target == "blocks.0.bn1")
    assert container.node_for(step).target == "0.bn1"


def test_a_child_whose_hooks_the_model_needs_stays_closed() -> None:
    def hook(*_: object) -> None:
        return None

    hook.__module__ = "transformers.utils.output_capturing"
    model = nets.BasicBlocks()
    model.blocks[0].register_forward_hook(hook)
    with pytest.raises(TraceError, match="hooks of the model itself stand on 0"):
        opened(model, "blocks", "0", "1")


def test_a_container_called_twice_has_no_single_graph() -> None:
    class Twice(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.block = nets.BasicBlock(16, 16, 1)

        def run(self, x: Tensor) -> Tensor:
            return self.block(self.block(x))

    with pytest.raises(TraceError, match="it is called 2 times"):
        opened(Twice(), "block")


def test_a_forward_on_the_object_is_not_overridden() -> None:
    model = nets.BasicBlocks()
    model.blocks[0].forward = model.blocks[0].forward  # type: ignore[method-assign]
    with pytest.raises(TraceError, match="its forward is set on the object"):
        opened(model, "blocks.0")


def test_arguments_that_cannot_be_written_down_are_refused() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
            return x.relu()

    class Outer(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def run(self, x: Tensor) -> Tensor:
            return self.inner(x, (1, 2))

    with pytest.raises(TraceError, match="argument 'sizes' of its forward is a tuple"):
        opened(Outer(), "inner")


def test_both_modes_are_verified() -> None:
    class TwoFaced(nets.Body):
        """In training the children run in another order, which no flag explains."""

        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.ModuleList([nn.ReLU(), nn.Tanh()])

        def run(self, x: Tensor) -> Tensor:
            for layer in list(self.pair)[:: -1 if self.training else 1]:
                x = layer(x)
            return x

    with pytest.raises(TraceError, match="different things in training"):
        opened(TwoFaced(), "")


def test_tracing_does_not_touch_the_model() -> None:
    model = nets.BasicBlocks().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    opened(model, "blocks.0")
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Growing(nets.Body):
    """Hands a list on to each layer and appends to it afterwards, as DenseNet does."""

    class Layer(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.conv = nets.conv(inputs)

        def forward(self, features: list[Tensor]) -> Tensor:
            return self.conv(torch.cat(features, 1).relu())

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Layer(16 * (i + 1)) for i in range(3))

    def run(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return features[-1]


def test_a_list_that_grows_after_the_call_is_as_it_was_then() -> None:
    for i in range(3):
        recording, container = opened(Growing(), f"layers.{i}")
        assert container.node_for(recording.inside(f"layers.{i}")[0]).target is torch.cat


class Splitting(nets.Body):
    """Res2Net's way: parts of one tensor go through layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nets.conv(8, 8), nets.conv(8, 8)

    def run(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, 8, 1)
        c = x.chunk(2, 1)[1]
        return torch.cat([self.left(a) + c, self.right(b)], 1)


def test_parts_of_a_split_tensor_are_told_apart() -> None:
    recording, container = opened(Splitting(), "")
    left, right = (next(s for s in recording.inside("") if s.target == name) for name in ("left", "right"))
    parts = [container.node_for(step.all_input_nodes[0]) for step in (left, right)]
    assert [part.args[1] for part in parts] == [0, 1]
    assert [next(iter(part.users)).target for part in parts] == ["left", "right"]
