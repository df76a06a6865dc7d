"""A trace that an example helps where code asks for sizes: the model's numbers, for batches of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.capture import TraceError
from binarize.capture.valued import ValuedTracer, trace_on


class _Asking(nn.Module):
    """Asks for sizes in all the ways that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv2d(3, 4, 3), nn.Parameter(torch.full((1,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3 and isinstance(x, Tensor)
        n = len(x)
        x = self.conv(x).relu()
        if x.shape[2] > 4:
            x = x * self.gain
        x = x + torch.zeros(x.shape[0], 4, 1, 1)
        for i in range(x.size(1)):
            x = x + i
        height, width = x.shape[-2:]
        x = x.view(n, 4, *x.shape[2:]) * float(x.shape[1] / 4)
        return x.reshape(x.size(0), height * width, -1)


class _Iterating(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([one * 2 for one in x])


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.mean() > 0 else x


class _Reading(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.max().item()


def _tracer(example: Mapping[str, Any]) -> ValuedTracer:
    tracer = ValuedTracer()
    tracer.example = example
    return tracer


def test_sizes_are_answered_and_stay_steps() -> None:
    torch.manual_seed(0)
    model, before = _Asking(), torch.zeros
    graph, any_batch = trace_on(_tracer, model, {"x": torch.randn(2, 3, 8, 8)})
    traced = torch.fx.GraphModule(model, graph)
    assert any_batch and torch.zeros is before and "len" not in globals()
    for n in (1, 2, 5):
        x = torch.randn(n, 3, 8, 8)
        assert torch.equal(traced(x), model(x))
    assert not any("binarize" in key for node in graph.nodes for key in node.meta)


@pytest.mark.parametrize(
    "size", [(2, 3, 8, 4), (2, 3, 16, 4), (2, 1, 8, 8), (2, 3, 1, 8), (2, 8, 3, 8), (3, 8, 8)]
)
def test_other_sizes_than_those_that_found_the_way_are_refused(size: tuple[int, ...]) -> None:
    model, example = _Asking(), {"x": torch.randn(2, 3, 8, 8)}
    graph, _ = trace_on(_tracer, model, example)
    traced = torch.fx.GraphModule(model, graph)
    for n in (1, 2, 5):
        x = torch.randn(n, 3, 8, 8).to(memory_format=torch.channels_last)
        assert torch.equal(traced(x), model(x))
    with pytest.raises(RuntimeError):
        traced(torch.randn(size))


def test_a_batch_that_decides_is_noticed() -> None:
    assert not trace_on(_tracer, _Iterating(), {"x": torch.randn(2, 3)})[1]


@pytest.mark.parametrize("model", [_Branching(), _Reading()])
def test_the_numbers_in_a_tensor_answer_nothing(model: nn.Module) -> None:
    with pytest.raises(TraceError, match="the numbers in a tensor"):
        trace_on(_tracer, model, {"x": torch.ones(2, 3)})


class _Powers(nn.Module):
    """Functions of torch that take a number where others take a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(x, Tensor) and len(x.shape) == 2
        return torch.pow(x.abs() + 1, 0.5) + torch.where(x > 0, x, 0.0)


def test_steps_are_no_tensors_to_torch() -> None:
    before, model = isinstance, _Powers()
    graph, _ = trace_on(_tracer, model, {"x": torch.randn(2, 3)})
    assert isinstance is before
    x = torch.randn(4, 3)
    assert torch.equal(torch.fx.GraphModule(model, graph)(x), model(x))
