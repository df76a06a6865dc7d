"""Graphs that somebody else wrote: names outside the closed lists, arguments that fit nothing, text that is code."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_graph import CONTENTS, X
from torch import Tensor, nn

import binarize
from binarize.capture.methods import check_fixed
from binarize.errors import SourceError, UsageError
from binarize.packed.file import format as packed_file
from binarize.packed.file.contents import alone
from binarize.packed.file.format import FORMAT, PackedModel, read_file, write_file
from binarize.packed.graph.names import ATTRIBUTES, METHODS, NAMES


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "packed.safetensors"
    write_file(path, CONTENTS)
    return path


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(index, tables)."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    return json.loads(zlib.decompress(tensors.pop("index").numpy().tobytes())), tensors


def sealed(path: Path, index: bytes, tensors: dict[str, Tensor]) -> None:
    """Write a file whose sha256 is right, whatever it holds."""
    tensors = {"index": torch.tensor(list(zlib.compress(index)), dtype=torch.uint8), **tensors}
    save_file(tensors, path, metadata={"format": FORMAT, "sha256": packed_file._digest(FORMAT, tensors)})


def load_changed(path: Path, graph: Any, folder: Path) -> nn.Module:
    index, tensors = opened(path)
    index["about"]["graph"] = graph
    sealed(folder / "packed.safetensors", json.dumps(index).encode(), tensors)
    return binarize.load_packed(folder / "packed.safetensors")


def graph_now() -> dict[str, Any]:
    graph: dict[str, Any] = copy.deepcopy(CONTENTS.about["graph"])
    return graph


def step(kind: str) -> Callable[[dict[str, Any]], list[Any]]:
    """The first step of a kind."""
    return lambda graph: next(one for one in graph["nodes"] if one[0] == kind)


def put(
    find: Callable[[dict[str, Any]], Any], *keys: Any
) -> Callable[[Any], Callable[[dict[str, Any]], None]]:
    def with_value(value: Any) -> Callable[[dict[str, Any]], None]:
        def change(graph: dict[str, Any]) -> None:
            target = find(graph)
            for key in keys[:-1]:
                target = target[key]
            target[keys[-1]] = value

        return change

    return with_value


def whole(graph: dict[str, Any]) -> dict[str, Any]:
    return graph


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


FUNCTION, METHOD, MODULE = step("function"), step("method"), step("module")
ATTRIBUTE, TENSOR = step("attribute"), step("tensor")
SHELL = "os.system"
CODE = "x) -> None: import os"
HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "no graph": lambda graph: graph.clear(),
    "more keys": put(whole, "evil")(1),
    "nodes are a text": put(whole, "nodes")("x"),
    "modules are a list": put(whole, "modules")([]),
    "inputs are a dict": put(whole, "inputs")({}),
    # names
    **{
        f"the function {name}": put(FUNCTION, 1)(name)
        for name in (
            SHELL, "builtins.eval", "builtins.exec", "torch.load", "torch.save", "torch.from_file", "torch.as_strided",
            "torch.ops.load_library", "torch.hub.load", "torch.compile", "operator.attrgetter", "operator.methodcaller",
            "operator.__import__", "functional.torch", "functional.__builtins__", "math.__loader__", "add", "", "torch",
            "torch.add\n", "functional.boolean_dispatch", "subprocess.Popen",
        )
    },
    **{
        f"the method {name}": put(METHOD, 1)(name)
        for name in (
            "__class__", "__reduce__", "__init_subclass__", "apply_", "map_", "numpy", "set_", "resize_", "as_strided",
            "as_strided_", "backward", "register_hook", "share_memory_", "tolist", "storage", "data_ptr", "view; exec",
        )
    },
    **{
        f"the attribute {name}": put(ATTRIBUTE, 1)(name)
        for name in ("__class__", "__dict__", "grad_fn", "data", "_base", "shape; import os", "")
    },
    "a kind of another sort": put(FUNCTION, 0)("eval"),
    "a kind that is a list": put(FUNCTION, 0)([]),
    "a function that is a list": put(FUNCTION, 1)([]),
    "a module nobody described": put(MODULE, 1)("nobody"),
    "a module by its method": put(MODULE, 1)("stem.register_forward_hook"),
    "a tensor that is not there": put(TENSOR, 1)("stem.nothing"),
    "a tensor that is a module": put(TENSOR, 1)("stem"),
    "a tensor that is a function": put(TENSOR, 1)("forward.__globals__"),
    # module types
    **{
        f"the module type {name}": put(whole, "modules", "stem", 0)(name)
        for name in ("nn.Module", "nn.ModuleList", "nn.Lambda", SHELL, "Conv2d", "torch.jit.ScriptModule", "packed", "")
    },
    "a module type that is a list": put(whole, "modules", "stem", 0)([]),
    "a module without arguments": put(whole, "modules", "stem", 1)({}),
    "a module with one argument more": put(whole, "modules", "stem", 1, "device")("cpu"),
    "a module that is a text": put(whole, "modules", "stem")("nn.ReLU"),
    "2^40 channels": put(whole, "modules", "stem", 1, "in_channels")(1 << 40),
    "2^30 channels": put(whole, "modules", "stem", 1, "in_channels")(1 << 30),
    "no channels": put(whole, "modules", "stem", 1, "in_channels")(0),
    "another number of channels": put(whole, "modules", "stem", 1, "out_channels")(15),
    "channels are a text": put(whole, "modules", "stem", 1, "in_channels")("3"),
    "channels are a dict": put(whole, "modules", "stem", 1, "in_channels")({}),
    "a kernel of 1000 axes": put(whole, "modules", "stem", 1, "kernel_size")([1] * 1000),
    "a padding mode that is none": put(whole, "modules", "stem", 1, "padding_mode")("__class__"),
    "padding that is a text": put(whole, "modules", "stem", 1, "padding")("os"),
    "an eps of infinity": put(whole, "modules", "norm", 1, "eps")(1e308 * 10),
    "10^9 layers of a recurrent network": put(whole, "modules", "rnn")(
        ["nn.RNN", {"input_size": 1, "hidden_size": 1, "num_layers": 10**9, "bias": True, "batch_first": True, "dropout": 0.0,
                        "bidirectional": False, "nonlinearity": "tanh"}]
    ),
    # paths
    **{
        f"the path {path!r}": put(whole, "modules", path)(["nn.Identity", {}])
        for path in (
            "", ".", "a..b", "a\nb", "a\x1bb", "a\u202eb", "a.b.", "forward", "training", "_modules", "__class__",
            "stem.child", "conv1.child", "conv1.norm.x", "parameters.x", "a" * 200, "a." * 50 + "b", "relu.0",
        )
    },
    # arguments of forward, and names in the printed code
    **{
        f"the argument {name!r}": put(whole, "inputs", 0, 0)(name)
        for name in ("self", "lambda", "1x", "x y", CODE, "x\n", "", "power", 1, None, ["x"])
    },
    "an argument twice as long": put(whole, "inputs", 0)(["x", 1, 2]),
    "an argument that is a tensor": put(whole, "inputs", 1)(["power", {"node": 0}]),
    "an argument that is code": put(whole, "inputs", 1)(["power", "__import__('os')"]),
    **{
        f"the keyword {name!r}": put(FUNCTION, 3)({name: 1})
        for name in ("lambda", "a b", CODE, "", "1x", "a=1, b")
    },
    # values
    "a node of the future": put(FUNCTION, 2, 0)({"node": -1}),
    "a node further back than the first": put(FUNCTION, 2, 0)({"node": 1000}),
    "itself": put(FUNCTION, 2, 0)({"node": 0}),
    "a node that is true": put(FUNCTION, 2, 0)({"node": True}),
    "a node that is a text": put(FUNCTION, 2, 0)({"node": "x"}),
    "arguments that are a dict": put(FUNCTION, 2)({}),
    "keywords that are a list": put(FUNCTION, 3)([]),
    "a method of nothing": put(METHOD, 2)([]),
    "a method of a text": put(METHOD, 2, 0)("x"),
    "an attribute of a text": put(ATTRIBUTE, 2, 0)("x"),
    "a text that ends": put(FUNCTION, 2, 0)("'); import os; ('"),
    "a text of two lines": put(FUNCTION, 2, 0)("a\nb"),
    "a text of 10^6 letters": put(FUNCTION, 2, 0)("a" * 10**6),
    "a number of 1000 digits": put(FUNCTION, 2, 0)(10**1000),
    "lists in lists": put(FUNCTION, 2, 0)(deep(500)),
    "a tag that is none": put(FUNCTION, 2, 0)({"object": "os"}),
    "two tags": put(FUNCTION, 2, 0)({"node": 0, "tuple": []}),
    "a type that is none": put(FUNCTION, 2, 0)({"dtype": "os"}),
    "a device that is none": put(FUNCTION, 2, 0)({"device": "meta"}),
    "a slice of two": put(FUNCTION, 2, 0)({"slice": [1, 2]}),
    "a dict of lists": put(FUNCTION, 2, 0)({"dict": [[[], 1]]}),
    "an output that is not there": put(whole, "output")({"node": 10**6}),
    "a step of three": put(whole, "nodes", 0)(["module", "stem", []]),
    "140000 steps": lambda graph: graph.update(nodes=[graph["nodes"][0]] * 140_000),
    # parts of packed layers
    "a packed layer nobody has": put(whole, "modules", "ghost")(["packed", {"shortcut": True, "activation": True}]),
    "a packed layer run by a number": put(whole, "modules", "conv1", 1)({"shortcut": 1, "activation": True}),
    "a packed layer run by nothing": put(whole, "modules", "conv1", 1)([]),
    "a part that is none": put(whole, "modules", "conv1.weight")(["nn.Identity", {}]),
    "a table as a part": put(whole, "modules", "conv1.bits")(["nn.Identity", {}]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_graph_is_refused(name: str, written: Path, tmp_path: Path) -> None:
    graph = graph_now()
    HOSTILE[name](graph)
    with pytest.raises(SourceError, match=r"packed\.safetensors: "):
        load_changed(written, graph, tmp_path)


def test_an_untouched_graph_is_read(written: Path, tmp_path: Path) -> None:
    model = load_changed(written, graph_now(), tmp_path)
    with torch.no_grad():
        assert torch.equal(model(X), alone(read_file(written))(X))


# --- anything


def targets_are_closed(model: nn.Module) -> bool:
    functions = {*NAMES, getattr, check_fixed}
    assert isinstance(model, torch.fx.GraphModule)
    for node in model.graph.nodes:
        if node.op == "call_function" and node.target not in functions:
            return False
        if node.op == "call_function" and node.target is getattr and node.args[1] not in ATTRIBUTES:
            return False
        if node.op == "call_method" and node.target not in METHODS:
            return False
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield from places(one, (*path, key))


PLACES = [path for path in places(CONTENTS.about["graph"]) if path]
NAMED = [
    SHELL,
    CODE,
    "torch.load",
    "torch.add",
    "nn.Conv2d",
    "view",
    "shape",
    "stem",
    "conv1",
    "x",
    "__class__",
    "self",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 40), st.integers(-(2**70), 2**70), st.floats(allow_nan=False),
    st.sampled_from(NAMED), st.text(max_size=8),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["node", "tuple", "dict", "slice", "dtype", "x", "packed"]), inner, max_size=2
        ),
    ),
    max_leaves=6,
)


@settings(
    derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), TREES), min_size=1, max_size=3))
def test_any_other_graph_is_refused_or_names_what_it_may(changes: list[tuple[Any, Any]]) -> None:
    graph = graph_now()
    for path, value in changes:
        target: Any = graph
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (IndexError, KeyError, TypeError):
            continue  # an earlier change took the place away
    contents = copy.deepcopy(CONTENTS.layers)
    for layer in contents.values():
        layer.front = layer.norm = layer.shortcut = layer.activation = None
    try:
        model = alone(PackedModel(contents, CONTENTS.rest, {**CONTENTS.about, "graph": graph}))
    except UsageError:
        return
    assert targets_are_closed(model)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.sampled(2)
def test_flipped_bits_under_a_right_checksum_make_errors_or_models(
    seed: int, written: Path, tmp_path: Path
) -> None:
    """Of the index's text and of every table: the parsers behind the checksum, and what they let pass is run."""
    index, tensors = opened(written)
    text, chosen, loaded = json.dumps(index).encode(), random.Random(seed), 0
    path = tmp_path / "packed.safetensors"
    for trial in range(50):
        changed, tables = bytearray(text), {name: value.clone() for name, value in tensors.items()}
        if trial % 5:
            place = chosen.randrange(8 * len(changed))
            changed[place // 8] ^= 1 << place % 8
        else:
            table = tables[chosen.choice(sorted(tables))].view(torch.uint8)
            place = chosen.randrange(8 * table.numel())
            table[place // 8] ^= 1 << place % 8
        sealed(path, bytes(changed), tables)
        try:
            model = binarize.load_packed(path)
        except SourceError:
            continue
        loaded += 1
        assert targets_are_closed(model)
        try:
            with torch.no_grad():
                model(X)
        except Exception as error:  # as any model may fail on an input that it was not made for
            assert not isinstance(error, SystemError)
    assert loaded > 5


def test_a_text_cut_off_under_a_right_checksum_is_refused(written: Path, tmp_path: Path) -> None:
    index, tensors = opened(written)
    text = json.dumps(index).encode()
    for length in range(0, len(text), 61):
        sealed(tmp_path / "packed.safetensors", text[:length], tensors)
        with pytest.raises(SourceError):
            binarize.load_packed(tmp_path / "packed.safetensors")
