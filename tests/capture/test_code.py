"""A graph's source says what the graph does, and no name in it can become code."""

from __future__ import annotations

import copy
import enum
import math
import operator
import pickle
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.capture import trace_container
from binarize.capture.code import code_of
from binarize.capture.graph_model import GraphModel
from binarize.errors import RewriteError
from binarize.passes.generated import forward_source, give_forward

ODD_NAMES = [
    "class",
    "def",
    "lambda",
    "None",
    "True",
    "__debug__",
    'a"b',
    "a'b",
    "a\\",
    "a\nb",
    "a\n    import os",
    "a b",
    " ",
    "1",
    "-",
    "é",
    "ﬁ",
    "日本",
    "{x}",
    "%s",
    "#",
    "\x00",
    "\x1b[31m",
    "\u202e",
    "T",
    "self",
    "torch",
    "getattr",
    "weight",
    "__x",
    # Were these run, there would be no such item, or no such line.
    '1"), [][0], getattr(self, "1',
    '1")\n    [][0]\n    getattr(self, "1',
]


class Two(nn.Module):
    """Calls two children by whatever names they have, and reads a parameter of one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        self.names = [first, second]
        self.add_module(first, nn.Linear(2, 2))
        self.add_module(second, nn.Sequential(nn.Linear(2, 2), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        first, second = (self._modules[name] for name in self.names)
        return second(first(x)) + first.weight.sum()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_child_may_have_any_name(name: str) -> None:
    model, x = Two(name, name + "_"), torch.randn(3, 2)
    expected = model(x)
    give_forward(model, trace_container(model, {}))
    for same in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(same(x), expected, rtol=0, atol=0)
    assert code_of({"forward": trace_container(model, {})}, model).source == forward_source(model)


@pytest.mark.parametrize("name", ["class", 'a"b', "a\\", ODD_NAMES[-1]])
def test_a_graph_module_may_have_children_of_any_name(name: str) -> None:
    model, x = Two(name, name + "_"), torch.randn(3, 2)
    made = GraphModel(model, trace_container(model, {}))
    for same in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(same(x), model(x), rtol=0, atol=0)
        assert isinstance(same, torch.fx.GraphModule) and same.recompile().src == made.code


class Kind(enum.IntEnum):
    ONE = 1


Pair = namedtuple("Pair", "a b")
VALUES = [
    None, True, 0, -1, 10**30, 10**1500, 0.0, -0.0, 1.5, -2.5e-300, math.inf, -math.inf, 1j, -1j, "", 'a"\n\\', "\ud800",
    b"\x00", ..., (), (1,), (1, -2), [], [1, [2.5]], {"a b": 1, 2: (None,)}, slice(None), slice(1, None, -1), range(3),
    torch.float32, torch.channels_last, torch.strided, torch.device("cpu"), torch.device("cuda", 1), Kind.ONE,
    Pair(1, (2,)), int, F.relu, torch.add, len, math.sqrt, operator.add, frozenset([1]),
]  # fmt: skip


def given_back(*values: Any) -> Any:
    return values


@pytest.mark.parametrize("value", VALUES, ids=[f"{i}-{type(v).__name__}" for i, v in enumerate(VALUES)])
def test_constants_come_back_as_they_were(value: Any) -> None:
    graph = torch.fx.Graph()
    one = graph.placeholder("x")
    # torch.fx itself refuses some values, but a graph may hold them.
    node = graph.call_function(given_back, (one,))
    node.args = (one, value)
    graph.output(node)
    model = nn.Module()
    give_forward(model, graph)
    for same in (model, pickle.loads(pickle.dumps(model))):
        first, found = same(7)
        assert first == 7 and type(found) is type(value) and found == value
        if isinstance(value, float):
            assert math.copysign(1, found) == math.copysign(1, value)


def test_not_a_number_comes_back() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.call_function(given_back, (math.nan, -math.nan)))
    model = nn.Module()
    give_forward(model, graph)
    assert all(math.isnan(value) for value in model())


BINARY = [
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and_", "or_", "xor"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
]
IN_PLACE = [
    *(
        "iadd",
        "isub",
        "imul",
        "itruediv",
        "ifloordiv",
        "imod",
        "ipow",
        "ilshift",
        "irshift",
        "iand",
        "ior",
        "ixor",
    ),
]


@pytest.mark.parametrize("name", BINARY + IN_PLACE)
@pytest.mark.parametrize("pair", [(-3, 2), (7, 3)])
def test_operators_keep_their_meaning_and_their_operands(name: str, pair: tuple[int, int]) -> None:
    function = getattr(operator, name)
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    left = graph.call_function(function, (x, pair[1]))
    right = graph.call_function(function, (pair[0], pair[1]))
    graph.output((left, right, x))
    model = nn.Module()
    give_forward(model, graph)
    expected = function(pair[0], pair[1])
    assert model(pair[0]) == (expected, expected, pair[0])


def test_every_value_is_let_go_behind_its_last_use() -> None:
    source = code_of({"forward": torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), nn.ReLU())).graph}).source
    assert source == (
        "def forward(self, input):\n"
        "    _0 = getattr(self, '0')(input)\n"
        "    input = None\n"
        "    _1 = getattr(self, '1')(_0)\n"
        "    _0 = None\n"
        "    return _1\n"
    )


def test_arguments_keep_their_names_whatever_they_hide() -> None:
    class Hiding(nn.Module):
        def forward(self, torch, getattr=None, *self_1, slice, **inf):  # type: ignore[no-untyped-def]
            return F.relu(torch)[slice:] * math.inf

    model = Hiding()
    graph = trace_container(model, {"getattr": None})
    give_forward(model, graph)
    assert model(torch.ones(2), slice=1).tolist() == [math.inf]


BAD_GRAPHS = {
    "a module that is not there": lambda g, x: g.call_module("none", (x,)),
    "what is no module": lambda g, x: g.call_module("training", (x,)),
    "a path with code": lambda g, x: g.call_module('a"), print("ran"), getattr(self, "a', (x,)),
    "an attribute that is not there": lambda g, x: g.get_attr("a\nb"),
    "a method with a line": lambda g, x: g.call_method("relu()\n    print", (x,)),
    "a method that is a keyword": lambda g, x: g.call_method("class", (x,)),
    "a keyword with code": lambda g, x: g.call_function(F.relu, (x,), {"inplace=print(1), b": True}),
    "an argument with a line": lambda g, x: g.placeholder("y):\n    print(1)\n    return (x"),
    "an argument twice": lambda g, x: g.placeholder("x"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(BAD_GRAPHS))
def test_a_graph_that_names_anything_else_is_refused(name: str) -> None:
    graph = torch.fx.Graph()
    node = BAD_GRAPHS[name](graph, graph.placeholder("x"))
    graph.output(node)
    with pytest.raises(RewriteError):
        give_forward(nn.Module(), graph)


def test_compiled_and_exported_forwards_with_odd_names() -> None:
    model, x = Two("class", ODD_NAMES[-1]), torch.randn(3, 2)
    expected = model(x)
    give_forward(model, trace_container(model, {}))
    torch.testing.assert_close(
        torch.compile(model, backend="eager", fullgraph=True)(x), expected, rtol=0, atol=0
    )
    exported = torch.export.export(model, (x,), strict=False)
    assert len(exported.state_dict) == 4
