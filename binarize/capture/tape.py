"""The concrete recorder: run a module once and write down every tensor operation.

It works on every model that runs, whatever its control flow, because nothing is symbolic: the path taken on the example
is the path recorded. The result is a torch.fx.Graph for reading, not for running: shapes and Python numbers are baked.

Leaf modules become one `call_module` node, everything else is entered; a node's `meta` holds
    op      name of the operation: "relu", "add_", "conv2d"; the class name for a leaf module
    shape   shape of its (first) tensor, None if it yields none
    memory  (offset, strides) of that tensor in its storage
    frames  ((module path, call index), ...): the modules entered, outermost first
    inside  names of the operations that a leaf module called
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from binarize.capture.leaves import is_leaf
from binarize.modules.outputs import opened

__all__ = ["Recording", "UncopiedError", "record", "setitem", "written"]

Frame = tuple[str, int]
Frames = tuple[Frame, ...]


@dataclass
class Recording:
    """One run of a module: the graph, what each entered module was called with, and what came out."""

    root: nn.Module
    graph: torch.fx.Graph
    output: Any
    # How often each module was called, by path; modules that never ran are absent.
    calls: dict[str, int] = field(default_factory=dict)
    # (path, call index) -> the arguments of that call, real or meta tensors in place.
    arguments: dict[Frame, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    # (path, call index, id(tensor)) -> the node that had made an argument when the call began.
    producers: dict[tuple[str, int, int], torch.fx.Node] = field(default_factory=dict)
    # Tensors that the run used but nobody produced, by the names of their nodes: Python constants of the model.
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def inside(self, path: str, index: int = 0) -> list[torch.fx.Node]:
        """The nodes recorded while the given call of a module ran, in order."""
        return self._by_call.get((path, index), [])

    @cached_property
    def _by_call(self) -> dict[Frame, list[torch.fx.Node]]:
        """What `inside` is asked for many times over."""
        found: dict[Frame, list[torch.fx.Node]] = {}
        for node in self.graph.nodes:
            for frame in node.meta.get("frames", ()):
                found.setdefault(frame, []).append(node)
        return found


class UncopiedError(Exception):
    """A copy of a model computes with a tensor of the original; the message is its path."""


def record(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    originals: Mapping[int, str] | None = None,
    *,
    is_leaf: Callable[[nn.Module], bool] = is_leaf,
) -> Recording:
    """Run `module(*args, **kwargs)` once without gradients and record it; `is_leaf` says which modules stay closed.

    The module runs as it is, in its present mode: pass a copy (see shadow.py) if its buffers matter. `originals` are
    then the tensors of the model that it is a copy of, id -> path.

    Raises: UncopiedError, where it computes with one of them.
    """
    recorder = _Recorder(module, originals, is_leaf)
    keywords = dict(kwargs or {})
    for tensor in pytree.tree_leaves((args, keywords)):
        if isinstance(tensor, torch.Tensor):
            recorder.add_input(tensor)
    with recorder.watching_modules(), torch.no_grad(), recorder:
        output = module(*args, **keywords)
    recorder.graph.output(recorder.nodes_of(output))
    return recorder.recording(output)


def setitem(base: Any, index: object, value: object) -> Any:
    """`base[index] = value` as a function, the form in which the recorder writes it down."""
    base[index] = value
    return base


def written(view: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """The tensor `view` after `by` was written into the memory that they share."""
    return view


# In place of a module's output where its forward raised: torch then calls the hook without one.
_RAISED = object()
# Arguments that are written down as they are.
_AS_THEY_ARE = (bool, int, float, str, torch.dtype, torch.device)
# Calls that yield a tensor but are no step of the computation.
_NOT_RECORDED = frozenset({"requires_grad_", "__set__", "retain_grad", "register_hook"})


class _Recorder(TorchFunctionMode):
    """Turns tensor operations and module calls into nodes. Tensors are known by identity and kept alive for it."""

    def __init__(
        self,
        root: nn.Module,
        originals: Mapping[int, str] | None = None,
        is_leaf: Callable[[nn.Module], bool] = is_leaf,
    ) -> None:
        super().__init__()
        self.root, self.is_leaf = root, is_leaf
        self.originals = originals or {}
        self.graph = torch.fx.Graph()
        self.node_by_tensor: dict[int, torch.fx.Node] = {}
        self.kept_alive: list[torch.Tensor] = []
        self.tensors_by_storage: dict[int, dict[int, torch.Tensor]] = {}
        self.path_by_module = {child: path for path, child in root.named_modules()}
        self.path_by_parameter: dict[int, str] = {}
        for path, tensor in [
            *root.named_parameters(remove_duplicate=False),
            *root.named_buffers(remove_duplicate=False),
        ]:
            self.path_by_parameter.setdefault(id(tensor), path)
        self.frames: list[Frame] = []
        self.leaf: nn.Module | None = None
        # What the leaf that runs has called so far.
        self.inside: list[str] = []
        # True while our own code looks at tensors, which would otherwise be recorded too.
        self.paused = False
        self.calls: dict[str, int] = {}
        self.arguments: dict[Frame, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.producers: dict[tuple[str, int, int], torch.fx.Node] = {}
        self.constants: dict[str, torch.Tensor] = {}

    def recording(self, output: object) -> Recording:
        return Recording(
            self.root, self.graph, output, self.calls, self.arguments, self.producers, self.constants
        )

    # --- values to nodes and back

    def add_input(self, tensor: torch.Tensor) -> None:
        node = self.graph.placeholder(f"x{len(self.graph.nodes)}")
        self.bind(tensor, node)
        node.meta.update(op="placeholder", frames=())

    def node_of(self, tensor: torch.Tensor) -> torch.fx.Node:
        node = self.node_by_tensor.get(id(tensor))
        if node is not None:
            return node
        path = self.path_by_parameter.get(id(tensor))
        if path is None and id(tensor) in self.originals:
            raise UncopiedError(self.originals[id(tensor)])
        if path is None:
            path = f"_constant_{len(self.constants)}"
            self.constants[path] = tensor
        # A bare Graph has no module to look the name up in, which create_node does not ask for.
        node = self.graph.create_node("get_attr", path)
        node.meta.update(op="get_attr", frames=())
        self.bind(tensor, node)
        return node

    def nodes_of(self, value: object) -> Any:
        """The same structure with nodes in place of tensors."""
        if isinstance(value, torch.Tensor):
            return self.node_of(value)
        if isinstance(value, torch.Size):
            return tuple(int(size) for size in value)
        if isinstance(value, (list, tuple)):
            items = [self.nodes_of(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, dict):
            return {str(key): self.nodes_of(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(self.nodes_of(value.start), self.nodes_of(value.stop), self.nodes_of(value.step))
        if hasattr(value, "to_tuple"):
            return self.nodes_of(value.to_tuple())
        if value is None or value is ... or isinstance(value, _AS_THEY_ARE):
            return value
        plain = opened(value)
        return self.nodes_of(plain) if isinstance(plain, dict) else repr(type(value))

    def bind(self, value: object, node: torch.fx.Node) -> None:
        """From now on the tensors in `value` are what `node` yields."""
        if isinstance(value, torch.Tensor):
            node.meta.setdefault("shape", tuple(value.shape))
            if value.layout is torch.strided:
                node.meta.setdefault("memory", (value.storage_offset(), value.stride()))
            self.node_by_tensor[id(value)] = node
            self.kept_alive.append(value)
            with contextlib.suppress(NotImplementedError, RuntimeError):  # sparse tensors own no storage
                self.tensors_by_storage.setdefault(value.untyped_storage()._cdata, {})[id(value)] = value
            return
        if isinstance(value, (list, tuple)):
            items: list[tuple[Any, Any]] = list(enumerate(value))
        elif isinstance(value, dict):
            items = list(value.items())
        elif hasattr(value, "__dict__") and not isinstance(value, type):
            items = list(vars(value).items())
        else:
            return
        for key, item in items:
            if isinstance(item, (torch.Tensor, list, tuple, dict)):
                part = self.add("call_function", operator.getitem, (node, key), {}, op="getitem")
                self.bind(item, part)

    def add(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], op: str
    ) -> torch.fx.Node:
        node = self.graph.create_node(kind, target, args, kwargs, name=op.strip("_") or "op")
        node.meta.update(op=op, frames=tuple(self.frames))
        return node

    # --- operations

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        name = operation_name(func)
        if self.leaf is not None or self.paused:
            if self.leaf is not None:
                self.inside.append(name)
            return func(*args, **keywords)
        if name == "__setitem__":
            arg_nodes = self.nodes_of(args)
            func(*args, **keywords)
            node = self.add("call_function", setitem, arg_nodes, {}, op=name)
            self.bind(args[0], node)
            self.write_through(args[0], node)
            return None
        # Arguments are looked up before the call: an in-place operation yields one of them again.
        arg_nodes, keyword_nodes = self.nodes_of(tuple(args)), self.nodes_of(dict(keywords))
        output = func(*args, **keywords)
        if name in _NOT_RECORDED or not _has_tensor(output):
            return output
        node = self.add("call_function", func, arg_nodes, keyword_nodes, op=name)
        self.bind(output, node)
        if args and isinstance(args[0], torch.Tensor) and writes_in_place(name, keywords):
            self.write_through(args[0], node)
        return output

    def write_through(self, tensor: torch.Tensor, node: torch.fx.Node) -> None:
        """A write through one view is seen through every other tensor on the same memory."""
        with contextlib.suppress(NotImplementedError, RuntimeError):
            for key, other in list(self.tensors_by_storage[tensor.untyped_storage()._cdata].items()):
                if other is not tensor and self.node_by_tensor.get(key) not in (None, node):
                    seen = self.add("call_function", written, (self.node_by_tensor[key], node), {}, "written")
                    self.bind(other, seen)

    # --- modules

    @contextlib.contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Follow which module runs, by torch's global forward hooks."""
        handles = [
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(self.leave, with_kwargs=True, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
                # torch forgets this entry, and would then take every module call the slow way for ever after.
                module_hooks._global_forward_hooks_with_kwargs.pop(handle.id, None)

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        path = self.path_by_module.get(module)
        if path is None or self.leaf is not None:
            return
        index = self.calls.get(path, 0)
        self.calls[path] = index + 1
        if path and self.is_leaf(module):
            self.leaf, self.inside = module, []
        else:
            self.frames.append((path, index))
            # Lists as they are now: the caller may append to them afterwards (DenseNet does).
            self.arguments[path, index] = (pytree.tree_map(lambda value: value, args), {})
            for tensor in pytree.tree_leaves(args):
                if isinstance(tensor, torch.Tensor) and id(tensor) in self.node_by_tensor:
                    self.producers[path, index, id(tensor)] = self.node_by_tensor[id(tensor)]

    def leave(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object = _RAISED
    ) -> None:
        path = self.path_by_module.get(module)
        if path is None or (self.leaf is not None and self.leaf is not module):
            return
        if output is _RAISED:
            if self.leaf is None:
                self.frames.pop()
            self.leaf = None
            return
        if self.leaf is None:
            frame = self.frames.pop()
            self.arguments[frame] = (self.arguments[frame][0], dict(kwargs))
            return
        self.paused = True
        try:
            arg_nodes, keyword_nodes = self.nodes_of(tuple(args)), self.nodes_of(dict(kwargs))
            node = self.add("call_module", path, arg_nodes, keyword_nodes, op=type(module).__name__)
            node.meta["inside"] = tuple(self.inside)
            self.bind(output, node)
            if args and isinstance(args[0], torch.Tensor) and getattr(module, "inplace", False):
                self.write_through(args[0], node)
        finally:
            self.paused = False
            self.leaf = None


def operation_name(func: Callable[..., Any]) -> str:
    """`relu` for torch.relu, F.relu and Tensor.relu; `T` for the property; `max_pool2d` for the dispatched pools."""
    name = getattr(func, "__name__", "") or str(func)
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", name)
    return name


def writes_in_place(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation of that name changes its first argument."""
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_") or bool(kwargs.get("inplace"))


def _has_tensor(value: object) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
