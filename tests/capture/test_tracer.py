"""A container's graph: valid in both modes, and trusted only if it does what the original did."""

from __future__ import annotations

import operator
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.capture.methods import check_fixed
from binarize.capture.tape import record
from binarize.capture.tracer import TraceError, align, concrete_arguments, trace_container
from binarize.errors import UsageError
from binarize.modules.copies import shadow


def traced(module: nn.Module, *args: Any, opened: tuple[str, ...] = (), **kwargs: Any) -> torch.fx.Graph:
    """The module's graph, aligned with a recording in either mode."""
    graph = trace_container(module, concrete_arguments(module, args, kwargs), opened)
    for training in (False, True):
        module.train(training)
        align(record(module, args, kwargs), "", 0, module, graph)
    return graph


def targets(graph: torch.fx.Graph) -> list[str]:
    """Short names of the graph's calls."""
    names = [node.target for node in graph.nodes if node.op.startswith("call")]
    return [name if isinstance(name, str) else name.__name__ for name in names]


def test_children_stay_closed_unless_opened() -> None:
    block = nets.BasicBlocks()
    x = torch.randn(2, 16, 8, 8)
    assert targets(traced(nn.Sequential(block.blocks, nn.ReLU()), x)) == ["0", "1"]
    inner = targets(traced(nn.Sequential(block.blocks[0], nn.ReLU()), x, opened=("0",)))
    assert inner == ["0.conv1", "0.bn1", "0.relu", "0.conv2", "0.bn2", "add", "0.relu", "1"]


def test_a_training_flag_is_read_when_the_graph_runs() -> None:
    graph = traced(nets.FunctionalDropout(), nets.pictures(2))
    flags = [node for node in graph.nodes if node.op == "get_attr" and node.target == "training"]
    dropouts = [
        node for node in graph.nodes if getattr(node.target, "__name__", "") in ("dropout", "dropout2d")
    ]
    assert len(dropouts) == 2
    assert all(set(flags) & {*node.args, *node.kwargs.values()} for node in dropouts)


def test_a_flag_of_an_opened_child_is_that_childs() -> None:
    graph = traced(nn.Sequential(nets.FunctionalDropout()), nets.pictures(2), opened=("0",))
    assert {node.target for node in graph.nodes if "training" in str(node.target)} == {"0.training"}


def test_tracing_leaves_mode_and_buffers_alone() -> None:
    model = nets.FunctionalNorm()
    model.stem.eval()
    before = [module.training for module in model.modules()]
    mean = model.bn.running_mean.clone()
    trace_container(model, {})
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.bn.running_mean, mean)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


class OtherInTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if self.training else x


class Counting(nn.Module):
    """Computes with the mode as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2.0 if self.training else 3.0)


class Alternating(nn.Module):
    """Does something else each time it is called."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu() if self.calls % 2 else x.exp()


@pytest.mark.parametrize(
    "module, reason",
    [
        (
            Branching(),
            "TraceError: symbolically traced variables cannot be used as inputs to control flow at .*test_tracer:",
        ),
        (OtherInTraining(), "different things in training and in evaluation mode"),
        (Counting(), "computes with its mode in a way that is not a flag"),
        (Alternating(), "different things in training|the trace differs from what runs, first at"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_no_single_graph_computes_is_refused_with_the_reason(module: nn.Module, reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        traced(module, torch.ones(2))


class Looping(nn.Module):
    """The trace repeats the loop as often as the example had it."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 2

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = x + 1
        return x


def test_a_trace_that_does_not_do_what_ran_is_refused() -> None:
    module = Looping()
    recording = record(module, (torch.ones(2),))
    module.times = 3
    with pytest.raises(TraceError, match="3 operations where 2 run"):
        align(recording, "", 0, module, trace_container(module, {}))
    module.times = 2
    graph = trace_container(module, {})
    next(node for node in graph.nodes if node.target is operator.add).target = operator.mul
    with pytest.raises(TraceError, match="first at add"):
        align(recording, "", 0, module, graph)


def test_alignment_names_the_recorded_step_of_every_node() -> None:
    model = shadow(nets.BasicBlocks()).eval()
    recording = record(model, (torch.empty(2, 3, 16, 16, device="meta"),))
    graph = trace_container(model.blocks[1], {})
    found = align(recording, "blocks.1", 0, model.blocks[1], graph)
    ops = {
        str(node.target): [step.meta["op"] for step in steps]
        for node, steps in found.items()
        if node.op == "call_module"
    }
    # The projection is closed: its node stands for both of its steps.
    assert ops["downsample"] == ["Conv2d", "BatchNorm2d"]
    assert ops["conv1"] == ["Conv2d"]
    (argument,) = [steps for node, steps in found.items() if node.op == "placeholder"]
    assert argument == [recording.inside("blocks.0")[-1]]


class Optional(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        return x * scale if mask is None else x * mask


def test_arguments_without_tensors_are_fixed_and_keep_their_names() -> None:
    module = Optional()
    x = torch.ones(2)
    assert concrete_arguments(module, (x,), {"scale": 0.5}) == {"mask": None, "scale": 0.5}
    graph = traced(module, x, scale=0.5)
    placeholders = [(node.target, node.args) for node in graph.nodes if node.op == "placeholder"]
    assert placeholders == [("x", ()), ("mask", (None,)), ("scale", (1.0,))]


@pytest.mark.parametrize("value, fixed", [(None, None), (0.5, 0.5), ("a", "a"), (True, True)])
def test_a_fixed_argument_may_be_given_again(value: object, fixed: object) -> None:
    check_fixed(value, fixed, "mask")


@pytest.mark.parametrize(
    "value, fixed", [(torch.ones(2), None), (0.5, None), (0.5, 1.0), (torch.ones(2), 1.0), (None, 0)]
)
def test_a_fixed_argument_with_another_value_is_an_error(value: object, fixed: object) -> None:
    with pytest.raises(UsageError, match="argument 'mask' was"):
        check_fixed(value, fixed, "mask")


class Variadic(nn.Module):
    def forward(self, x: Tensor, *more: Tensor, **options: Any) -> Tensor:
        return F.relu(x)


def test_unused_star_arguments_do_no_harm_and_used_ones_are_refused() -> None:
    assert targets(traced(Variadic(), torch.ones(2))) == ["relu"]
    with pytest.raises(TraceError, match=r"\*more"):
        traced(Variadic(), torch.ones(2), torch.ones(2))
