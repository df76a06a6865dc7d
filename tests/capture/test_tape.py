"""What the recorder writes down: every operation with its inputs, shape and the modules around it."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.capture.tape import Recording, record


class Function(nn.Module):
    """A module that computes one function."""

    def __init__(self, function: Any, **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def steps(recording: Recording) -> list[str]:
    """Names of the operations in order."""
    return [node.meta["op"] for node in recording.graph.nodes if node.op.startswith("call")]


def inputs_of(recording: Recording, op: str) -> list[str]:
    """Operations that the first step of that name reads from."""
    node = next(node for node in recording.graph.nodes if node.meta.get("op") == op)
    return [source.meta["op"] for source in node.all_input_nodes]


def test_operations_are_named_as_one_writes_them() -> None:
    recording = record(Function(lambda self, x: F.relu(x) + x.relu().T[0] * 2), (torch.randn(3, 3),))
    assert steps(recording) == ["relu", "relu", "T", "__getitem__", "mul", "add"]


def test_a_leaf_module_is_one_step_and_a_container_a_frame() -> None:
    recording = record(nets.ConvBnRelu().eval(), nets.ConvBnRelu().arguments())
    assert steps(recording)[:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    node = recording.inside("layers")[3]
    assert (node.target, node.meta["shape"]) == ("layers.3", (4, 16, 16, 16))
    assert node.meta["frames"] == (("", 0), ("layers", 0))
    assert recording.calls["layers"] == 1 and recording.calls["head.fc"] == 1


def test_calls_of_a_shared_module_are_counted_and_kept_apart() -> None:
    recording = record(
        Function(lambda self, x: self.block(self.block(x)), block=nets.BasicBlock(4, 4, 1)),
        (torch.randn(1, 4, 5, 5),),
    )
    assert recording.calls["block"] == 2
    assert len(recording.inside("block", 0)) == len(recording.inside("block", 1)) == 7
    assert not set(recording.inside("block", 0)) & set(recording.inside("block", 1))


def test_what_runs_only_in_training_is_absent_from_evaluation() -> None:
    model = nets.AuxiliaryHead()
    evaluation = record(model.eval(), model.arguments())
    training = record(model.train(), model.arguments())
    assert "aux_conv" not in evaluation.calls
    assert training.calls["aux_conv"] == 1


def test_a_write_through_a_view_is_read_by_later_steps() -> None:
    def write(self: nn.Module, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0].add_(1)
        return y.relu()

    recording = record(Function(write), (torch.randn(2, 2),))
    assert steps(recording) == ["clone", "__getitem__", "add_", "written", "relu"]
    assert inputs_of(recording, "relu") == ["written"]


def test_assignment_to_a_part_is_a_step() -> None:
    def assign(self: nn.Module, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, 0] = x[:, 1]
        return y.exp()

    recording = record(Function(assign), (torch.randn(2, 2),))
    assert steps(recording) == ["zeros_like", "__getitem__", "__setitem__", "exp"]
    assert inputs_of(recording, "exp") == ["__setitem__"]


def test_an_in_place_activation_module_replaces_its_input() -> None:
    def overwrite(self: Any, x: Tensor) -> Tensor:
        y = x + 1
        self.relu(y)
        return y * 2

    recording = record(Function(overwrite, relu=nn.ReLU(inplace=True)), (torch.randn(2),))
    assert inputs_of(recording, "mul") == ["ReLU"]


@pytest.mark.parametrize("structure", [lambda a, b: (a, b), lambda a, b: {"a": a, "b": [b]}])
def test_structured_outputs_end_in_the_graphs_output(structure: Any) -> None:
    recording = record(Function(lambda self, x: structure(x.relu(), x.exp())), (torch.randn(2),))
    output = next(node for node in recording.graph.nodes if node.op == "output")
    assert [source.meta["op"] for source in output.all_input_nodes] == ["relu", "exp"]


def test_parts_of_a_steps_output_lead_back_to_it() -> None:
    recording = record(Function(lambda self, x: torch.chunk(x, 2)[1].relu()), (torch.randn(4),))
    assert inputs_of(recording, "relu") == ["getitem"]
    assert inputs_of(recording, "getitem") == ["chunk"]


def test_arguments_by_keyword_are_inputs() -> None:
    recording = record(Function(lambda self, a, b: a + b), (torch.ones(2),), {"b": torch.ones(2)})
    assert inputs_of(recording, "add") == ["placeholder", "placeholder"]


def test_parameters_are_known_by_path_and_constants_are_counted() -> None:
    outside = torch.ones(2, 2)
    recording = record(
        Function(lambda self, x: F.linear(x, self.fc.weight) + outside, fc=nn.Linear(2, 2)),
        (torch.ones(1, 2),),
    )
    assert [node.target for node in recording.graph.nodes if node.op == "get_attr"] == [
        "fc.weight",
        "_constant_0",
    ]
    assert list(recording.constants) == ["_constant_0"]


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no")


@pytest.mark.parametrize("child", [Raising(), nn.Conv2d(7, 7, 1)], ids=["opened", "leaf"])
@pytest.mark.filterwarnings("error")
def test_a_module_that_raises_inside_a_try_leaves_the_frames_in_order(child: nn.Module) -> None:
    def attempt(self: Any, x: Tensor) -> Tensor:
        try:
            return self.child(x)
        except (ValueError, RuntimeError):
            return x.exp()

    recording = record(Function(attempt, child=child), (torch.randn(1, 3, 4, 4),))
    assert steps(recording) == ["exp"]
    assert recording.inside("")[0].meta["frames"] == (("", 0),)


def test_a_recording_leaves_no_hook_behind() -> None:
    with pytest.raises(ValueError, match="no"):
        record(Raising(), (torch.ones(1),))
    assert not torch.nn.modules.module._has_any_global_hook()
