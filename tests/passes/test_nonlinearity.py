"""Activations in front of a sign give way, module by module and call by call."""

from __future__ import annotations

import nets
import pytest
import torch
from torch import nn

from binarize.binarizers.adabin import Maxout
from binarize.capture import trace_container
from binarize.errors import RewriteError
from binarize.passes.nonlinearity import attach_module, replace_activation, replace_module
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import Attach, Replace, ReplaceActivation
from binarize.schemes.part import Part

MAXOUT = NewActivation(Part("adabin.Maxout"), 16, 1)
NOTHING = NewActivation(None, 0, 1)


def test_a_module_is_replaced_in_dtype_and_mode_of_the_model() -> None:
    model = nets.ConvBnRelu().to(torch.float64).eval()
    replace_module(model, Replace("layers.5", MAXOUT))
    new = model.layers[5]
    assert isinstance(new, Maxout) and new.pos.dtype == torch.float64 and not new.training
    replace_module(model, Replace("layers.2", NOTHING))
    assert isinstance(model.layers[2], nn.Identity)


def test_hooks_stay_and_their_handles_still_remove_them() -> None:
    model = nets.ConvBnRelu().eval()
    fired: list[nn.Module] = []
    handle = model.layers[5].register_forward_hook(
        lambda module, *_, **__: fired.append(module), with_kwargs=True
    )
    replace_module(model, Replace("layers.5", MAXOUT))
    model(nets.pictures(2))
    assert fired == [model.layers[5]]
    handle.remove()
    model(nets.pictures(2))
    assert len(fired) == 1


def test_one_call_of_a_shared_module_is_replaced() -> None:
    model = nets.SharedRelu().eval()
    attach_module(model, Attach("activation", MAXOUT))
    graph = trace_container(model, {})
    replace_activation(graph, ReplaceActivation("", "relu_1", "activation"))
    targets = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    assert targets == ["stem", "bn0", "relu", "conv1", "bn1", "activation", "conv2", "bn2", "relu", "head"]


@pytest.mark.parametrize("node", ["relu", "relu_", "relu_1"])
def test_a_function_or_method_is_dropped(node: str) -> None:
    model = nets.FunctionalRelu()
    graph = trace_container(model, {})
    before = [n.name for n in graph.nodes]
    replace_activation(graph, ReplaceActivation("", node, None))
    graph.lint()
    assert [n.name for n in graph.nodes] == [name for name in before if name != node]


def test_a_name_that_is_taken_is_an_error_of_the_plan() -> None:
    with pytest.raises(RewriteError, match="attach: head exists already"):
        attach_module(nets.ConvBnRelu(), Attach("head", MAXOUT))
