"""Public methods that a container's forward runs on itself (`forward_features`): traced along with it.

Somebody may call them on their own. So when the graph of the forward is edited, the part of it that is a method is taken
out again and becomes that method's new code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
import torch.fx
from torch import nn

from binarize.capture.code import code_of
from binarize.errors import UsageError

__all__ = ["check_fixed", "hold_methods", "remember_methods", "take_methods", "watched_methods"]

# (arguments by name: nodes or constants, the node it returned) of every call
Calls = dict[str, list[tuple[dict[str, Any], Any]]]
_KEY = "methods"


def check_fixed(value: object, fixed: object, name: str) -> None:
    """Stands in a rewritten forward: an argument that was fixed by the trace must have the value it had then.

    Raises: UsageError.
    """
    if value is not fixed and (isinstance(value, torch.Tensor) or fixed is None or value != fixed):
        raise UsageError(
            f"argument {name!r} was {fixed!r} in the example that the model was converted on, and its rewritten forward "
            f"takes nothing else, but it is {type(value).__name__ if isinstance(value, torch.Tensor) else repr(value)} "
            f"now\n  convert the model on an example with that argument"
        )


@contextmanager
def watched_methods(container: nn.Module) -> Iterator[Calls]:
    """While the container is traced: which of its public methods are called, with what, and what they return."""
    calls: Calls = {}
    functions = {n: f for n, f in _public_methods(type(container)).items() if n not in vars(container)}
    try:
        for name, function in functions.items():
            vars(container)[name] = _watched(container, name, function, calls)
        yield calls
    finally:
        for name in functions:
            vars(container).pop(name, None)


def remember_methods(graph: torch.fx.Graph, calls: Calls) -> None:
    """Note in the graph which methods can be taken out of it: those called once, on tensors, that return a tensor."""
    found = {}
    for name, made in calls.items():
        arguments, result = made[0]
        plain = (torch.fx.Proxy, bool, int, float, str, type(None))
        if (
            len(made) == 1
            and isinstance(result, torch.fx.Proxy)
            and all(isinstance(a, plain) for a in arguments.values())
        ):
            nodes = {key: a.node if isinstance(a, torch.fx.Proxy) else a for key, a in arguments.items()}
            found[name] = (nodes, result.node)
    graph.output_node().meta[_KEY] = found


def hold_methods(graph: torch.fx.Graph) -> None:
    """Make the graph return what its methods take and return as well, so that edits replace these values there too."""
    output = graph.output_node()
    held = {}
    for name, (arguments, result) in output.meta.get(_KEY, {}).items():
        part = _part(graph, arguments, result)
        if part is not None:
            held[name] = {"arguments": arguments, "result": result, "before": _code(part)}
    output.args = ((output.args[0], held),)


def take_methods(graph: torch.fx.Graph, container: nn.Module) -> dict[str, torch.fx.Graph]:
    """Undo `hold_methods`: the graphs of the methods that the edits have changed."""
    output: Any = graph.output_node()
    value, held = output.args[0]
    output.args = (value,)
    changed = {}
    for name, one in held.items():
        defaults = inspect.signature(getattr(type(container), name)).parameters
        part = _part(graph, one["arguments"], one["result"], defaults)
        if part is not None and _code(_part(graph, one["arguments"], one["result"])) != one["before"]:
            changed[name] = part
    return changed


def _public_methods(cls: type[nn.Module]) -> dict[str, FunctionType]:
    found: dict[str, FunctionType] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("torch.nn."):
            continue
        for name, value in vars(base).items():
            if isinstance(value, FunctionType) and not name.startswith("_") and name != "forward":
                found.setdefault(name, value)
    return found


def _watched(container: nn.Module, name: str, function: FunctionType, calls: Calls) -> Any:
    def run(*args: object, **kwargs: object) -> Any:
        result = function(container, *args, **kwargs)
        calls.setdefault(name, []).append((_arguments(function, container, args, kwargs), result))
        return result

    return run


def _arguments(
    function: FunctionType, container: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Every argument of the call but `self`, those with their default too; *args and **kwargs only if they hold any."""
    signature = inspect.signature(function)
    bound = signature.bind(container, *args, **kwargs)
    bound.apply_defaults()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: value
        for name, value in list(bound.arguments.items())[1:]
        if signature.parameters[name].kind not in variadic or value
    }


def _part(
    graph: torch.fx.Graph, arguments: dict[str, Any], result: torch.fx.Node, defaults: Any = None
) -> torch.fx.Graph | None:
    """The graph from the arguments to the result; None where it reads anything else from around it."""
    part = torch.fx.Graph()
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for name, value in arguments.items():
        default = inspect.Parameter.empty if defaults is None else defaults[name].default
        placeholder = part.placeholder(name, default_value=default)
        if isinstance(value, torch.fx.Node):
            copies[value] = placeholder
        else:
            part.call_function(check_fixed, (placeholder, value, name))
    needed, stack = set(copies), [result]
    while stack:
        node = stack.pop()
        if node not in needed:
            if node.op == "placeholder":
                return None
            needed.add(node)
            stack += node.all_input_nodes
    for node in graph.nodes:
        # A step whose value nobody reads may write in place.
        writes = node.op.startswith("call") and not node.users and set(node.all_input_nodes) <= copies.keys()
        if node not in copies and (node in needed or (writes and node.all_input_nodes)):
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[result])
    return part


def _code(part: torch.fx.Graph | None) -> str:
    return code_of({"forward": part}).source if part is not None else ""
