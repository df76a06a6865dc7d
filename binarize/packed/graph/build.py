"""A graph as JSON values + the numbers of a packed file -> a model. Every name is checked before it is used.

The model is a torch.fx.GraphModule: its forward is made of the checked graph, so that it is exported and compiled like
any other. Its modules stand at the paths they had, without the classes that held them.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import Node

from binarize.capture.expressions import is_identifier
from binarize.capture.graph_model import GraphModel
from binarize.capture.methods import check_fixed
from binarize.errors import CheckError, RewriteError, UsageError
from binarize.kernels.tracing import is_recorded
from binarize.packed.freeze import frozen_record, remember_frozen
from binarize.packed.frozen.layer import PARTS
from binarize.packed.graph.bounds import GUARD
from binarize.packed.graph.modules import make, may_hold, own_tensors
from binarize.packed.graph.names import ATTRIBUTES, FUNCTIONS, METHODS, UNARY, is_path
from binarize.packed.graph.rehearse import FOREIGN, check_memory, check_recorded
from binarize.packed.graph.values import decode
from binarize.packed.layers import PackedLayer

__all__ = ["build", "rehearse"]

_MOST_STEPS = 1 << 15


def build(data: object, layers: Mapping[str, PackedLayer], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model of a graph, in evaluation mode. The layers become part of it.

    Raises: UsageError, where the graph, its modules and the tensors do not fit together.
    """
    keys = ("inputs", "modules", "nodes", "output")
    if not isinstance(data, dict) or data.keys() != set(keys):
        raise UsageError("the graph is none")
    inputs, modules, nodes, output = (data[key] for key in keys)
    if not isinstance(inputs, list) or not isinstance(modules, dict) or not isinstance(nodes, list):
        raise UsageError("the graph has no inputs, modules or nodes")
    if len(inputs) + len(modules) + len(nodes) > _MOST_STEPS:
        raise UsageError(f"the graph has {len(nodes)} nodes")
    root = _root(modules, layers)
    _fill(root, tensors)
    graph = torch.fx.Graph()
    made: list[Node] = []
    for one in inputs:
        made.append(_input(graph, one, {str(node.target) for node in made}))
    for argument, one in zip(made, inputs):
        if len(one) == 2:
            graph.call_function(check_fixed, (argument, decode(one[1], ()), one[0]))
    for step in nodes:
        made.append(_step(graph, step, made, modules, root, tensors))
    graph.output(decode(output, made))
    try:
        model = _Packed(root, graph, "Packed")
    except (IndexError, RewriteError, RuntimeError, SyntaxError, TypeError, ValueError) as error:
        raise UsageError(f"the graph is no program: {str(error)[:80]}") from error
    return model.eval().requires_grad_(False)


def rehearse(model: nn.Module, shapes: Sequence[Sequence[int]], held: int) -> None:
    """Find out on shapes alone what a built model would take of memory: now, or where it meets its first input.

    Raises: TooLarge, where it takes too much.
    """
    assert isinstance(model, _Packed)
    model.unrehearsed = None if check_recorded(model, shapes, held) else held


class _Packed(GraphModel):
    """Copies keep what is known of the model. A step that fails is named: the graph may be anybody's."""

    guard = GUARD
    # The bytes of the file, where the model could not be run on the shapes that it records.
    unrehearsed: int | None = None

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if is_recorded():
            return super().__call__(*args, **kwargs)
        if self.unrehearsed is not None:
            check_memory(self, [*args, *kwargs.values()], self.unrehearsed)
            self.unrehearsed = None
        try:
            return super().__call__(*args, **kwargs)
        except FOREIGN as error:
            raise CheckError(f"packed model: {_failing_step(error)}{_taken(self)}") from error

    def __deepcopy__(self, memo: Any) -> Any:
        copied, record = super().__deepcopy__(memo), frozen_record(self)
        if record is not None:
            remember_frozen(copied, record)
        return copied


def _failing_step(error: BaseException) -> str:
    """The step of a printed graph in which an error came up, and what it says."""
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "forward" and "eval_with_key" in frame.f_code.co_filename:
            text = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
            return (
                f"its step {text.partition('=')[0].strip()[:100]!r} does not take what it is given ({said})"
            )
    return f"it does not take these inputs ({said})"


def _taken(model: nn.Module) -> str:
    record = frozen_record(model)
    shapes = () if record is None else record.input_shapes
    return (
        f"; it was packed for inputs of {' and '.join(str(list(shape)) for shape in shapes)}"
        if shapes
        else ""
    )


# --- modules and tensors


def _root(modules: Mapping[str, Any], layers: Mapping[str, PackedLayer]) -> nn.Module:
    root = nn.Module()
    for path in sorted(modules, key=lambda path: (path.count("."), *_natural(path))):
        if not is_path(path):
            raise UsageError(f"{path[:80]!r} is no path of a module")
        said = modules[path]
        packed = isinstance(said, list) and len(said) == 2 and said[0] == "packed"
        _hang(root, path, _packed(layers.get(path), said[1], path) if packed else make(said))
    return root


def _packed(layer: PackedLayer | None, run: Mapping[str, Any], path: str) -> PackedLayer:
    named = isinstance(run, dict) and run.keys() - {"first"} == {"shortcut", "activation"}
    if layer is None or not named or not all(type(inside) is bool for inside in run.values()):
        raise UsageError(f"{path}: there is no such packed layer")
    layer.shortcut_inside, layer.activation_inside = run["shortcut"], run["activation"]
    layer.activation_first = run.get("first", False)
    return layer


def _natural(path: str) -> list[tuple[int, str]]:
    """Orders children of a Sequential by their number."""
    return [(int(part) if part.isdecimal() and len(part) < 9 else 0, part) for part in path.split(".")]


def _hang(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at its path, with bare modules on the way to it."""
    *owners, name = path.split(".")
    place = root
    for owner in owners:
        place = _bare(place, owner, path)
    _add(place, name, module, path)


def _bare(place: nn.Module, name: str, path: str) -> nn.Module:
    """The module under a name on the way to another one; a bare one where there is none yet."""
    found = place._modules.get(name)
    if found is None:
        if isinstance(place, PackedLayer) and getattr(place, f"{name}_inside", True):
            raise UsageError(f"{path}: the packed layer runs a {name!r} that nothing describes")
        found = nn.Module()
        _add(place, name, found, path)
    return found


def _add(place: nn.Module, name: str, module: nn.Module, path: str) -> None:
    part = isinstance(place, PackedLayer) and name in PARTS and getattr(place, name) is None
    bare = type(place) is nn.Module and not hasattr(place, name)
    if not (part or bare or may_hold(place, name)):
        raise UsageError(f"{path}: a {type(place).__name__} holds no {name!r}")
    place.add_module(name, module)


def _fill(root: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the described modules, which have no data, their numbers."""
    for path, module in list(root.named_modules()):
        for name, empty in own_tensors(module).items():
            if not empty.is_meta:
                continue
            full = f"{path}.{name}"
            if name == "num_batches_tracked":  # counts training batches
                value: Tensor | None = torch.zeros((), dtype=torch.int64)
            else:
                value = tensors.get(full)
            if (
                value is None
                or value.shape != empty.shape
                or value.is_floating_point() != empty.is_floating_point()
            ):
                found = "missing" if value is None else f"{value.dtype} {tuple(value.shape)}"
                raise UsageError(f"{full} is {found}; expected {empty.dtype} {tuple(empty.shape)}")
            if isinstance(empty, nn.Parameter):
                module._parameters[name] = nn.Parameter(value, requires_grad=False)
            else:
                module._buffers[name] = value


# --- steps


def _input(graph: torch.fx.Graph, said: object, taken: set[str]) -> Node:
    if not isinstance(said, list) or len(said) not in (1, 2):
        raise UsageError(f"{str(said)[:80]} is no argument of forward")
    name = said[0]
    if not isinstance(name, str) or name in taken or name == "self" or not _is_name(name):
        raise UsageError(f"{str(name)[:80]!r} is no name of an argument")
    if len(said) == 1:
        return graph.placeholder(name)
    value = decode(said[1], ())
    if value is not None and type(value) not in (bool, int, float, str):
        raise UsageError(f"argument {name!r} is {str(value)[:40]}")
    return graph.placeholder(name, default_value=value)


def _is_name(name: str) -> bool:
    return is_identifier(name) and len(name) <= 100


def _step(
    graph: torch.fx.Graph,
    said: object,
    made: list[Node],
    modules: Mapping[str, Any],
    root: nn.Module,
    tensors: Mapping[str, Tensor],
) -> Node:
    if not isinstance(said, list) or len(said) != 4:
        raise UsageError(f"{str(said)[:80]} is no step")
    kind, target, listed, named = said
    if not isinstance(target, str) or not isinstance(listed, list) or not isinstance(named, dict):
        raise UsageError(f"{str(said)[:80]} is no step")
    if not all(_is_name(key) for key in named):
        raise UsageError(f"{str(said)[:80]} names no arguments")
    args = tuple(decode(one, made) for one in listed)
    kwargs = {key: decode(one, made) for key, one in named.items()}
    if kind == "module" and target in modules:
        return graph.call_module(target, args, kwargs)
    if kind == "function" and target in FUNCTIONS:
        if target.startswith("operator.") and (kwargs or len(args) != (1 if target in UNARY else 2)):
            raise UsageError(f"{target} is given {len(args)} arguments")
        return graph.call_function(FUNCTIONS[target], args, kwargs)
    if kind == "method" and target in METHODS and args and isinstance(args[0], Node):
        return graph.call_method(target, args, kwargs)
    if kind == "attribute" and target in ATTRIBUTES and len(args) == 1 and isinstance(args[0], Node):
        return graph.call_function(getattr, (args[0], target))
    if kind == "tensor" and target in tensors:
        _hold(root, target, tensors[target])
        return graph.get_attr(target)
    raise UsageError(f"{str(kind)[:40]} {target[:80]!r} is not on the closed list")


def _hold(root: nn.Module, path: str, value: Tensor) -> None:
    """Make a tensor that a step reads reachable under its path."""
    if not is_path(path):
        raise UsageError(f"{path[:80]!r} is no path of a tensor")
    *owners, name = path.split(".")
    place = root
    for owner in owners:
        place = _bare(place, owner, path)
    if name in place._parameters or name in place._buffers:
        return
    if type(place) is not nn.Module or hasattr(place, name):
        raise UsageError(f"{path}: {name!r} is taken")
    place.register_buffer(name, value)
