"""A symbolic trace that knows the values of an example: control flow goes the way that it goes there.

Where torch.fx has to give up, since code asks for a size (`assert`, `if`, `len`, `int`, iteration, `torch.zeros`), the
example answers. Sizes stay steps of the graph as long as nobody asks for them as Python numbers, so that most graphs take
batches of any size; whether one does is found out by a second trace with twice the batch. What code asks of the numbers
in a tensor has no answer: that differs from input to input.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree
from torch.utils._device import _device_constructors

from binarize.capture.tracer import TraceError

__all__ = ["ValuedTracer", "trace_on"]

_VALUE = "binarize_example"
# They make tensors of sizes, and see no difference between a number and a step that gives one.
_FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")
# What cannot stand for itself in a graph, and does not change with the batch.
_FIXED = (bool, str, torch.dtype, torch.device, torch.layout, type(None))
# By these a tensor gives its numbers away.
_NUMBERS = ("data_ptr", "item", "numpy", "tolist")
# Operators that change their first argument.
_WRITING = ("iadd", "iand", "ifloordiv", "imul", "ior", "isub", "itruediv", "setitem")


class _Valued(torch.fx.Proxy):
    """A step of the graph, with the value that it has for the example."""

    @property
    def value(self) -> Any:
        tracer: Any = self.tracer
        return tracer.value_of(self.node)

    @property
    def asked(self) -> Any:
        """The value, for code that goes on with it as a Python number."""
        if isinstance(self.value, Tensor):
            raise TraceError(f"the way of its code depends on the numbers in a tensor ({self.node.name})")
        return self.value

    def __bool__(self) -> bool:
        return bool(self.asked)

    def __len__(self) -> int:
        return len(self.value)

    def __int__(self) -> int:
        return int(self.asked)

    def __float__(self) -> float:
        return float(self.asked)

    def __index__(self) -> int:
        return operator.index(self.asked)

    def __iter__(self) -> Iterator[Any]:
        return (operator.getitem(cast(Any, self), i) for i in range(len(self.value)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.value, name)
        if name in _NUMBERS and isinstance(self.value, Tensor):
            raise TraceError(f"its code reads the numbers in a tensor (.{name})")
        if callable(found):
            return super().__getattr__(name)
        if isinstance(found, _FIXED) or name == "ndim":
            return found
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})


class ValuedTracer(torch.fx.Tracer):
    """A tracer whose steps are run on an example as they are written down."""

    # Argument of forward -> its value; None: an ordinary symbolic trace.
    example: Mapping[str, Any] | None = None
    _running = False

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> torch.fx.Graph:
        """The graph of a module; see the top of the file."""
        if self.example is None:
            return super().trace(root, concrete_args)
        with torch.no_grad(), self._patched(root):
            graph = super().trace(root, concrete_args)
        _drop_unread(graph)
        for node in graph.nodes:
            node.meta.pop(_VALUE, None)
        return graph

    def proxy(self, node: Node) -> torch.fx.Proxy:
        return super().proxy(node) if self.example is None else _Valued(node, self)

    def create_arg(self, a: object) -> Any:
        # isinstance takes a step for a tensor, which would be a constant of the model.
        return a.node if type(a) is _Valued else super().create_arg(a)

    def create_proxy(self, kind: str, *call: Any, **options: Any) -> Any:
        proxy = super().create_proxy(kind, *call, **options)
        if self.example is not None and kind != "output":
            self.value_of(proxy.node)
        return proxy

    def value_of(self, node: Node) -> Any:
        """What a step gives for the example; it is run once."""
        if _VALUE not in node.meta:
            running, self._running = self._running, True
            try:
                node.meta[_VALUE] = self._value(node)
            finally:
                self._running = running
        return node.meta[_VALUE]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return forward(*args, **kwargs) if self._running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: object, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: Node) -> Any:
        assert self.example is not None
        args = map_arg(node.args, self.value_of)
        kwargs = map_arg(node.kwargs, self.value_of)
        if node.op == "placeholder":
            return self.example[str(node.target)]
        if node.op == "get_attr":
            found = self.root
            for name in str(node.target).split("."):
                found = getattr(found, name)
            return found
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    @contextmanager
    def _patched(self, root: nn.Module) -> Iterator[None]:
        """Within it `len` in the code of the modules, and torch's factories, take steps for numbers."""

        # einops asks. A step must not say so by `__class__`: torch's own code then reads memory which no step has.
        real: Callable[..., bool] = builtins.isinstance

        def is_a(x: object, kinds: object) -> bool:
            return real(x, kinds) or (type(x) is _Valued and real(x.value, Tensor) and real(x.value, kinds))

        def length(x: Any) -> Any:
            return x.shape[0] if type(x) is _Valued and isinstance(x.value, Tensor) else builtins.len(x)

        def of_steps(made: Callable[..., Any]) -> Callable[..., Any]:
            def make(*args: Any, **kwargs: Any) -> Any:
                if any(type(leaf) is _Valued for leaf in pytree.tree_leaves((args, kwargs))):
                    return self.create_proxy("call_function", made, args, kwargs)
                return made(*args, **kwargs)

            return make

        with ExitStack() as stack:
            # torch looks up once which functions make tensors on a device; it must not find ours.
            _device_constructors()
            setattr(builtins, "isinstance", is_a)  # noqa: B010
            stack.callback(setattr, builtins, "isinstance", real)
            for name in _FACTORIES:
                made = getattr(torch, name)
                setattr(torch, name, of_steps(made))
                stack.callback(setattr, torch, name, made)
            for code in _globals_of(root):
                if "len" not in code:
                    code["len"] = length
                    stack.callback(code.pop, "len", None)
            yield


def _globals_of(root: nn.Module) -> list[dict[str, Any]]:
    """The names that the code of the modules sees, of each file once; torch's own is left alone."""
    found: dict[int, dict[str, Any]] = {}
    for module in root.modules():
        names = getattr(type(module).forward, "__globals__", {})
        if not str(names.get("__name__", "torch")).startswith("torch"):
            found[id(names)] = names
    return list(found.values())


def trace_on(
    make: Callable[[Mapping[str, Any]], ValuedTracer], root: nn.Module, example: Mapping[str, Any]
) -> tuple[torch.fx.Graph, bool]:
    """(the graph of a module on an example, whether a batch of twice the size has the same); that one refuses other sizes.

    Raises: TraceError, where code reads the numbers in a tensor, or an input has no sizes that could be compared.
    """
    graph = make(example).trace(root)
    size = next(
        (len(leaf) for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor) and leaf.dim()), 0
    )
    twice = pytree.tree_map_only(
        Tensor, lambda x: torch.cat([x, x]) if x.dim() and len(x) == size else x, dict(example)
    )
    try:
        other = make(twice).trace(root)
    except Exception:  # anything can come out of a user's forward run on another batch
        return graph, False
    if str(graph) != str(other):
        return graph, False
    _hold_sizes(graph, example)
    return graph, True


def _hold_sizes(graph: torch.fx.Graph, example: Mapping[str, Any]) -> None:
    """Let a graph refuse inputs of other sizes than the example's, the batch apart: its way was found for those alone."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node in inputs:
        value = example[str(node.target)]
        if not isinstance(value, Tensor) or not value.dim():
            raise TraceError(f"its code asks for sizes, and argument {node.target!r} is no tensor with any")
        with graph.inserting_after(inputs[-1]):
            sizes = graph.call_function(getattr, (node, "shape"))
        with graph.inserting_after(sizes):
            batch = graph.call_function(operator.getitem, (sizes, 0))
        # The first refuses another count of numbers, the second the same count in other sizes.
        with graph.inserting_after(batch):
            wanted = graph.call_method("reshape", (node, batch, *value.shape[1:]))
        with graph.inserting_after(wanted):
            same = graph.call_method("expand_as", (node, wanted))
        node.replace_all_uses_with(same, lambda user, own=(sizes, wanted, same): user not in own)


def _drop_unread(graph: torch.fx.Graph) -> None:
    """Drop steps that nobody reads and that change nothing: what code asked of a value to find its way."""
    for node in reversed(list(graph.nodes)):
        name = str(getattr(node.target, "__name__", node.target))
        writes = name.endswith("_") and not name.endswith("__")
        asked = node.op in ("call_function", "call_method", "get_attr") and not node.users
        if asked and not writes and name not in _WRITING:
            graph.erase_node(node)
