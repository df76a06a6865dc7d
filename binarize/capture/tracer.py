"""The symbolic tracer: one container -> a torch.fx.Graph that can be edited and printed as its new `forward`.

Only the container itself is opened, and those of its children that an edit reaches into; every other module stays one
call. So whatever the rest of the model does, it need not be traceable, and its hooks go on firing.

A trace is trusted only after `align` ran it and found the operations of a concrete recording of the original.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.fx
from torch import nn

from binarize.capture.methods import check_fixed, remember_methods, watched_methods
from binarize.capture.tape import Recording, _Recorder

__all__ = ["TraceError", "align", "concrete_arguments", "trace_container"]


# What `+=` and its kin are recorded as.
_AUGMENTED = frozenset({"add_", "sub_", "mul_", "div_", "true_divide_"})


class TraceError(Exception):
    """The container cannot be traced, or its trace is not what it computes. The message is the reason to report."""


class _Tracer(torch.fx.Tracer):
    """Opens only the named children; remembers in `meta["owner"]` which module's code made each node."""

    proxy_buffer_attributes = True

    def __init__(self, opened: Collection[str]) -> None:
        super().__init__(autowrap_modules=(math,))
        self.opened = frozenset(opened)
        self.owners: list[str] = [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.owners.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.owners.pop()

    def _proxy_placeholder(self, name: str, concrete_args: dict[str, Any] | None, *function: Any) -> Any:
        if concrete_args is None or name not in concrete_args:
            return super()._proxy_placeholder(name, concrete_args, *function)
        # torch.fx would call the argument `name_1`, and then nobody could give it by keyword any more.
        argument = super()._proxy_placeholder(name, None, *function)
        self.create_proxy("call_function", check_fixed, (argument, concrete_args[name], name), {})
        return concrete_args[name]

    def create_node(self, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self.owners[-1]
        return node


def trace_container(
    container: nn.Module, concrete: Mapping[str, Any], opened: Collection[str] = ()
) -> torch.fx.Graph:
    """The graph of one module, with `opened` children inlined and the `concrete` arguments fixed.

    The graph is valid in both modes: where the traces in training and in evaluation mode differ in a Python flag
    (`F.dropout(x, training=self.training)`), the flag is read from the module at run time.

    Raises: TraceError, if the container's code cannot be traced or its two modes differ in structure.
    """
    modes = {module: module.training for module in container.modules()}
    graphs = []
    try:
        for training in (False, True):
            container.train(training)
            with watched_methods(container) as calls:
                graphs.append(_Tracer(opened).trace(container, concrete_args=dict(concrete)))
            remember_methods(graphs[-1], calls)
    except Exception as error:  # anything can come out of a user's forward run on proxies
        raise TraceError(_reason(error)) from error
    finally:
        for module, training in modes.items():
            module.training = training
    evaluation, training_graph = graphs
    _make_flags_live(evaluation, training_graph)
    return evaluation


def align(
    recording: Recording, path: str, index: int, container: nn.Module, graph: torch.fx.Graph
) -> dict[torch.fx.Node, list[torch.fx.Node]]:
    """Run `graph` on the recorded arguments of one call and match it with what the original did there.

    Returns for every node of the trace the recorded nodes it stands for.
    Raises: TraceError, if the operations, their order, arguments or shapes differ.
    """
    args, kwargs = recording.arguments[path, index]
    found: dict[torch.fx.Node, list[torch.fx.Node]] = {}
    recorder = _Recorder(container)

    class _Run(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            before = len(recorder.graph.nodes)
            result = super().run_node(n)
            found[n] = [node for node in list(recorder.graph.nodes)[before:] if node.op != "get_attr"]
            return result

    inputs = _placeholder_values(container, graph, args, kwargs)
    for tensor in torch.utils._pytree.tree_leaves(inputs):
        if isinstance(tensor, torch.Tensor) and id(tensor) not in recorder.node_by_tensor:
            recorder.add_input(tensor)
    try:
        with recorder.watching_modules(), torch.no_grad(), recorder:
            _Run(container, garbage_collect_values=False, graph=graph).run(*inputs)
    except Exception as error:
        raise TraceError(_reason(error)) from error

    original = recording.inside(path, index)
    traced = [node for node in recorder.graph.nodes if node.op not in ("get_attr", "placeholder")]
    prefix = f"{path}." if path else ""
    ours, theirs = _canonical(traced, ""), _canonical(original, prefix)
    for mine, its, node in zip(ours, theirs, original):
        if mine != its and not _same_but_in_place(mine, its):
            raise TraceError(
                f"the trace differs from what runs, first at {node.meta['op']} ({its[:3]} became {mine[:3]})"
            )
    if len(ours) != len(theirs):
        raise TraceError(f"the trace has {len(ours)} operations where {len(theirs)} run")
    twin = dict(zip(traced, original))
    aligned = {node: [twin[step] for step in steps if step in twin] for node, steps in found.items()}
    for node, value in zip((n for n in graph.nodes if n.op == "placeholder"), inputs):
        producer = recording.producers.get((path, index, id(value)))
        aligned[node] = [producer] if producer is not None else []
    return aligned


def _reason(error: BaseException) -> str:
    """The exception in one line, with the line of the user's code that raised it."""
    frames = inspect.trace()
    where = ""
    for frame in frames:
        module = frame.frame.f_globals.get("__name__", "")
        if not module.startswith(("torch.fx", "binarize", "torch.nn.modules.module")):
            where = f" at {module}:{frame.lineno}"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}"


def concrete_arguments(
    container: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments that hold no tensor, with the value they had: `if mask is not None` must not see a proxy."""
    bound = _bind(container, args, kwargs)
    concrete = {}
    for name, value in bound.items():
        leaves = torch.utils._pytree.tree_leaves(value)
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            concrete[name] = value
    return concrete


def _bind(container: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(container.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: value
        for name, value in bound.arguments.items()
        if signature.parameters[name].kind not in variadic
    }


def _placeholder_values(
    container: nn.Module, graph: torch.fx.Graph, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any]:
    everything = inspect.signature(container.forward).bind(*args, **kwargs).arguments
    bound = _bind(container, args, kwargs)
    values = []
    for node in graph.nodes:
        if node.op != "placeholder":
            continue
        name = str(node.target)
        if name.startswith("*") and not everything.get(name.lstrip("*")):
            continue  # *args and **kwargs come last, and the call gave none
        if name not in bound:
            raise TraceError(
                f"argument {node.target!r} of its forward cannot be matched with the recorded call"
            )
        values.append(bound[name])
    return values


def _make_flags_live(evaluation: torch.fx.Graph, training: torch.fx.Graph) -> None:
    """Replace every flag that is False in evaluation and True in training by a read of its module's `training`."""
    if len(evaluation.nodes) != len(training.nodes):
        raise TraceError("its forward does different things in training and in evaluation mode")
    for mine, its in zip(list(evaluation.nodes), list(training.nodes)):
        if (mine.op, mine.target, mine.name) != (its.op, its.target, its.name):
            raise TraceError("its forward does different things in training and in evaluation mode")
        if str((mine.args, mine.kwargs)) == str((its.args, its.kwargs)):
            continue
        owner = mine.meta["owner"]
        with evaluation.inserting_before(mine):
            flag = evaluation.create_node("get_attr", f"{owner}.training" if owner else "training")
            flag.meta["owner"] = owner
        mine.args = _replace_flags(mine.args, its.args, flag)
        mine.kwargs = _replace_flags(mine.kwargs, its.kwargs, flag)


def _replace_flags(mine: Any, its: Any, flag: torch.fx.Node) -> Any:
    if mine is False and its is True:
        return flag
    if isinstance(mine, (list, tuple)) and len(mine) == len(its):
        return type(mine)(_replace_flags(a, b, flag) for a, b in zip(mine, its))
    if isinstance(mine, dict) and mine.keys() == its.keys():
        return {key: _replace_flags(value, its[key], flag) for key, value in mine.items()}
    if str(mine) != str(its):
        raise TraceError("its forward computes with its mode in a way that is not a flag")
    return mine


def _same_but_in_place(mine: tuple[Any, ...], its: tuple[Any, ...]) -> bool:
    """`y += x` is traced as `y = y + x`: the same value, unless `y` came from outside and is seen changed there."""
    if its[0] not in _AUGMENTED or (mine[0], *mine[1:]) != (its[0].rstrip("_"), *its[1:]):
        return False
    return bool(its[3]) and its[3][0][0] == "step"


def _canonical(nodes: list[torch.fx.Node], prefix: str) -> list[tuple[Any, ...]]:
    """Every step as a comparable tuple: operation, module, shape, arguments with other steps as their position."""
    position = {node: i for i, node in enumerate(nodes)}
    outside: dict[torch.fx.Node, int] = {}

    def value(argument: object) -> Any:
        if isinstance(argument, torch.fx.Node):
            if argument in position:
                return ("step", position[argument])
            if argument.op == "get_attr" and not str(argument.target).startswith("_constant_"):
                return ("parameter", str(argument.target).removeprefix(prefix))
            return ("outside", outside.setdefault(argument, len(outside)))
        if isinstance(argument, (list, tuple)):
            return tuple(value(item) for item in argument)
        if isinstance(argument, dict):
            return tuple(sorted((key, value(item)) for key, item in argument.items()))
        if isinstance(argument, slice):
            return ("slice", value(argument.start), value(argument.stop), value(argument.step))
        return repr(argument)

    steps = []
    for node in nodes:
        module = str(node.target).removeprefix(prefix) if node.op == "call_module" else ""
        steps.append((node.meta["op"], module, node.meta.get("shape"), value(node.args), value(node.kwargs)))
    return steps
