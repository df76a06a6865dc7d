"""A packed model -> its graph as JSON values, where it traces as a whole and names nothing outside the closed lists.

inputs    [[name], or [name, value] where the trace fixed it, ...]      arguments of forward
modules   {path: [type, arguments], ...}                                what the steps call, and what that holds;
          of a packed layer ["packed", {part: whether the layer runs it itself}]
nodes     [[kind, target, arguments, keywords], ...]                    the steps after the inputs, in their order
output    what the last step gives

kind      module (a path), function, method, attribute (of a tensor), tensor (a path)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from binarize.binarizers.nonlinearity import Nonlinearity, piecewise_of
from binarize.capture.valued import ValuedTracer, trace_on
from binarize.errors import UsageError
from binarize.packed.frozen.layer import PARTS
from binarize.packed.graph.modules import describe
from binarize.packed.graph.names import ATTRIBUTES, METHODS, NAMES, is_path
from binarize.packed.graph.values import encode
from binarize.packed.layers import PackedLayer

__all__ = ["graph_of", "loose_tensors"]


def graph_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]] | str:
    """(the graph of a packed model, the tensors that its code holds or makes anew), or in words why there is none.

    Which arguments are tensors is read from the example `args` and `kwargs`; the others keep their values.
    """
    before, tracer = set(vars(model)), None
    try:
        fixed = _fixed(model, args, kwargs)
        tracer = _Tracer(fixed)
        try:
            with torch.no_grad():
                traced = tracer.trace(model)
        except Exception:  # as below; on the example it may go its way
            traced = _on_example(model, fixed, _arguments(model, args, kwargs))
        for node in list(traced.nodes):
            if node.target is torch._assert:
                traced.erase_node(node)
        graph = _Writer(model, fixed).written(traced)
        loose = {name: _tensor(model, name) for name in loose_tensors(graph)}
        return graph, {name: value.detach().clone() for name, value in loose.items()}
    except UsageError as error:
        return str(error)
    except Exception as error:  # anything can come out of a user's forward run on proxies
        return _untraced(model, None if tracer is None else tracer.failed, error)
    finally:
        for name in vars(model).keys() - before:  # constants that the tracer hung on the model
            delattr(model, name)


def _on_example(model: nn.Module, fixed: Mapping[str, Any], example: Mapping[str, Any]) -> torch.fx.Graph:
    """The graph of the way that the model takes on an example, for inputs of its sizes alone, and batches of any.

    Raises: UsageError, where the batch decides too; TraceError, where an input has no sizes that could be held.
    """
    graph, any_batch = trace_on(lambda values: _Tracer(fixed, values), model, example)
    if not any_batch:
        raise UsageError("its code takes other steps for another batch")
    return graph


def _untraced(model: nn.Module, failed: tuple[str, nn.Module] | None, error: Exception) -> str:
    """In words what cannot be traced: the innermost module, with its path."""
    path, module = failed or ("", model)
    form = piecewise_of(module) if isinstance(module, Nonlinearity) else None
    if isinstance(form, str):
        return f"{path}: {form}"
    text = str(error).strip().partition("\n")[0]
    where = f"{path}, a {type(module).__name__}: " if path else ""
    name = f"{type(model).__name__} cannot be traced as a whole"
    return f"{name} ({where}{type(error).__name__}: {text[:120]})"


def loose_tensors(graph: Mapping[str, Any]) -> list[str]:
    """Paths of the tensors that the steps read themselves, not through a module."""
    return sorted({target for kind, target, *_ in graph["nodes"] if kind == "tensor"})


class _Tracer(ValuedTracer):
    """Opens everything but modules of the closed list."""

    proxy_buffer_attributes = True

    def __init__(self, fixed: Mapping[str, Any], example: Mapping[str, Any] | None = None) -> None:
        super().__init__(autowrap_modules=(math,))
        self.fixed, self.example = fixed, example
        # The innermost module that could not be traced, with its path.
        self.failed: tuple[str, nn.Module] | None = None

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # it goes on to `graph_of`
            self.failed = self.failed or (self.path_of_module(m), m)
            raise

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, PackedLayer):
            return True
        return type(m) is not nn.Sequential and not isinstance(describe(m), str)

    def _proxy_placeholder(self, name: str, concrete_args: object, *function: Any) -> Any:
        if name in self.fixed:
            return self.fixed[name]
        if name.startswith("*"):
            return () if not name.startswith("**") else {}
        return super()._proxy_placeholder(name, None, *function)


def _arguments(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of forward by name."""
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _fixed(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of forward that hold no tensor in the example, with their values."""
    signature = inspect.signature(model.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    fixed = {}
    for name, value in bound.arguments.items():
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)):
            variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            if signature.parameters[name].kind in variadic:
                raise UsageError(f"its forward takes any number of arguments ({name})")
        elif value is None or type(value) in (bool, int, float, str):
            fixed[name] = value
        elif value not in ((), {}):
            raise UsageError(f"argument {name!r} of its forward is a {type(value).__name__} without tensors")
    return fixed


class _Writer:
    """Writes a traced graph down."""

    def __init__(self, model: nn.Module, fixed: Mapping[str, Any]) -> None:
        self.model, self.fixed = model, fixed
        self.modules: dict[str, Any] = {}
        # The place of each step, inputs first, and how many there are.
        self.place: dict[Node, int] = {}
        self.steps = 0

    def written(self, traced: torch.fx.Graph) -> dict[str, Any]:
        arguments = inspect.signature(self.model.forward).parameters.values()
        placeholders = {str(node.target): node for node in traced.nodes if node.op == "placeholder"}
        inputs: list[Any] = []
        for one in arguments:
            if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                continue
            if one.name in placeholders:
                self.place[placeholders[one.name]] = len(inputs)
                inputs.append([one.name])
            else:
                inputs.append([one.name, self.value(self.fixed[one.name])])
        self.steps = len(inputs)
        nodes: list[Any] = []
        output: Any = None
        for node in traced.nodes:
            if node.op == "placeholder":
                continue
            if node.op == "output":
                output = self.value(node.args[0])
                continue
            nodes.append(self.step(node))
            self.place[node] = self.steps
            self.steps += 1
        return {"inputs": inputs, "modules": self.modules, "nodes": nodes, "output": output}

    def value(self, value: object) -> Any:
        return encode(value, lambda node: self.steps - self.place[node])

    def step(self, node: Node) -> list[Any]:
        args = [self.value(one) for one in node.args]
        kwargs = {key: self.value(one) for key, one in node.kwargs.items()}
        target = str(node.target)
        if node.op == "call_module":
            self.hold(target)
            return ["module", target, args, kwargs]
        if node.op == "get_attr":
            _tensor(self.model, target)
            return ["tensor", target, [], {}]
        if node.op == "call_method":
            if target not in METHODS:
                raise UsageError(f"its code calls the method {target!r}, which is not on the closed list")
            return ["method", target, args, kwargs]
        function = node.target
        if function is getattr and len(args) == 2 and args[1] in ATTRIBUTES:
            return ["attribute", args[1], args[:1], {}]
        if function not in NAMES:
            name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', function)}"
            raise UsageError(f"its code calls {name}, which is not on the closed list")
        return ["function", NAMES[function], args, kwargs]

    def hold(self, path: str) -> None:
        """Describe a module and what it holds."""
        if path in self.modules:
            return
        if not is_path(path):
            raise UsageError(f"{path!a:.80} is a name that cannot be written")
        module = self.model.get_submodule(path)
        if isinstance(module, PackedLayer):
            run = {name: getattr(module, f"{name}_inside") for name in ("shortcut", "activation")}
            # Files of earlier versions know of no such order.
            run |= {"first": True} if module.activation_first else {}
            self.modules[path] = ["packed", run]
            for name in PARTS:
                if getattr(module, name) is not None and run.get(name, True):
                    self.hold(f"{path}.{name}")
            return
        said = describe(module)
        if isinstance(said, str):
            raise UsageError(f"{path}: {said}")
        self.modules[path] = said
        for name in dict(module.named_children()) if type(module) is nn.Sequential else ():
            self.hold(f"{path}.{name}")


def _tensor(model: nn.Module, path: str) -> Tensor:
    if not is_path(path):
        raise UsageError(f"{path!a:.80} is a name that cannot be written")
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    value = getattr(module, name)
    if not isinstance(value, Tensor) or isinstance(module, PackedLayer):
        raise UsageError(f"its code reads {path}, which is no tensor of its own")
    return value
