"""Methods that a forward runs on itself are rewritten with it, so that calling them alone gives what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.capture import trace_container
from binarize.capture.methods import hold_methods, take_methods
from binarize.errors import UsageError
from binarize.passes.generated import give_forward
from binarize.passes.nonlinearity import replace_activation
from binarize.planning.record.edit_kinds import ReplaceActivation

Converted = Callable[..., nn.Module]


def test_forward_is_still_its_methods_after_each_other(converted: Converted) -> None:
    model: Any = converted("Features")
    x = nets.pictures(4)
    with torch.no_grad():
        features = model.forward_features(x)
        assert torch.equal(model(x), model.forward_head(features))
        assert torch.equal(model.forward_head(features, pre_logits=True), model.conv3(features))
    # A shortcut and a new nonlinearity are part of the features.
    assert "conv2.activation" in type(model)._binarize_source


def test_an_argument_that_was_fixed_by_the_forward_keeps_name_and_default(converted: Converted) -> None:
    model: Any = converted("Features")
    assert torch.equal(
        model.forward_features(nets.pictures(1), 1.0), model.forward_features(nets.pictures(1), scale=1.0)
    )
    with pytest.raises(UsageError, match=r"argument 'scale' was 1\.0 in the example"):
        model.forward_features(nets.pictures(1), scale=2.0)


def test_a_timm_model_gives_the_features_that_its_forward_uses() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet").eval()
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=nets.pictures(4, 64))
    x = nets.pictures(2, 64)
    with torch.no_grad():
        assert torch.equal(converted(x), converted.forward_head(converted.forward_features(x)))


def changed(module: nn.Module, *dropped: str) -> list[str]:
    """Which methods get new code when these activations are taken out of the graph."""
    graph = trace_container(module, {})
    hold_methods(graph)
    for node in dropped:
        replace_activation(graph, ReplaceActivation("", node, None))
    methods = take_methods(graph, module)
    give_forward(module, graph, methods)
    return list(methods)


class Helpers(nn.Module):
    def once(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def again(self, x: Tensor) -> Tensor:
        return x * 2

    def both(self, x: Tensor) -> Tensor:
        return self.again(x), x  # type: ignore[return-value]

    def _private(self, x: Tensor) -> Tensor:
        return F.tanh(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self._private(self.once(x)))


def test_only_what_an_edit_changed_gets_new_code() -> None:
    assert changed(Helpers()) == []
    assert changed(Helpers(), "relu") == ["once"]
    assert changed(Helpers(), "tanh") == []
    module = Helpers()
    changed(module, "relu")
    x = torch.tensor([-1.0, 1.0])
    assert torch.equal(module.once(x), x)
    assert torch.equal(module(x), torch.tanh(x) * 2)


class Repeated(Helpers):
    """A method called twice, one that gives two tensors, one that takes a structure."""

    def pick(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return F.relu(pair[0])

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.both(self.once(self.once(x)))
        return self.pick((first, second))


def test_methods_that_are_no_single_piece_of_the_graph_are_left_alone() -> None:
    module = Repeated()
    assert changed(module, "relu", "relu_1", "relu_2") == []
    assert torch.equal(module.once(torch.tensor([-1.0])), torch.zeros(1))


class InPlace(nn.Module):
    def features(self, x: Tensor) -> Tensor:
        x = x + 1
        x.mul_(3)
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) - 1


def test_a_write_whose_value_nobody_reads_stays_in_the_method() -> None:
    module = InPlace()
    assert changed(module, "relu") == ["features"]
    x = torch.tensor([-3.0, 1.0])
    assert torch.equal(module.features(x), (x + 1) * 3)
    assert torch.equal(module(x), (x + 1) * 3 - 1)


def test_tracing_leaves_no_trace_on_the_object() -> None:
    module = Helpers()
    before = dict(vars(module))
    trace_container(module, {})
    assert vars(module) == before
