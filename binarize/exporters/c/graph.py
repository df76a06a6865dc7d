"""A packed model -> the steps of its C file: recorded once on one sample, then translated node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.binarizers.nonlinearity import PiecewiseLinear
from binarize.capture.tape import Recording, setitem, written
from binarize.errors import UsageError
from binarize.exporters.c import layers, views
from binarize.exporters.c.call import Call, refuse
from binarize.exporters.c.elementwise import bent, mapped
from binarize.exporters.c.names import DRAWS, LIKE, MOVES, SAME, way_out
from binarize.exporters.c.operations import HANDLERS
from binarize.exporters.c.ports import Port, arguments_of_c, one_sample, results_of
from binarize.exporters.c.recorded import recorded
from binarize.exporters.c.steps import Program, Step, Storage, Value
from binarize.packed.freeze import Example

__all__ = ["Translated", "make_program", "obstacles"]

_DECIDED = (torch.float64, torch.float16, torch.bfloat16)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True)
class Translated:
    """The steps, and the arguments of the C function."""

    program: Program
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    # Places of the model's result that hold no tensor -> what is there.
    fixed: tuple[tuple[str, Any], ...] = ()


def make_program(model: nn.Module, sample: Tensor | Example) -> Translated:
    """The steps of a packed model on one sample (batch of 1).

    Raises: UsageError, naming the layer and the reason, for what C code here cannot express.
    """
    return _of(model, sample, None)


def obstacles(model: nn.Module, sample: Tensor | Example) -> list[UsageError]:
    """Every operation of a packed model that C code cannot express, each named once."""
    found: list[UsageError] = []
    try:
        _of(model, sample, found)
    except UsageError as error:
        found.append(error)
    return list({str(error): error for error in found}.values())


def _of(model: nn.Module, sample: Tensor | Example, found: list[UsageError] | None) -> Translated:
    example: Example = ((sample,), {}) if isinstance(sample, Tensor) else sample
    example = one_sample(example)
    ports = arguments_of_c(model, example)
    translation = _Translation(recorded(model, example), ports, found)
    return translation.translated()


class _Translation:
    """Node by node from the recording to steps."""

    def __init__(self, recording: Recording, ports: list[Port], found: list[UsageError] | None) -> None:
        self.recording, self.ports, self.found = recording, ports, found
        self.modules = dict(recording.root.named_modules())
        root = recording.root
        self.tensors = {**dict(root.named_parameters(remove_duplicate=False)), **recording.constants}
        self.tensors |= dict(root.named_buffers(remove_duplicate=False))
        # What each node yields: a value, a tensor that no input decides, or several of them.
        self.values: dict[torch.fx.Node, Any] = {}
        self.steps: list[Step] = []

    def translated(self) -> Translated:
        nodes = list(self.recording.graph.nodes)
        starts = [node for node in nodes if node.op == "placeholder"]
        inputs = [self.input(node, port) for node, port in zip(starts, self.ports, strict=True)]
        for node in nodes:
            if node.op in ("call_module", "call_function"):
                self.take(node)
        named, fixed = results_of(nodes[-1].args[0], lambda leaf: isinstance(leaf, torch.fx.Node))
        if not named:
            raise refuse("the model", "its forward yields no tensor that is made from its input")
        results = [self.result(leaf, name) for name, _, leaf in named]
        outputs = [Port(name, "float", value.shape, path) for (name, path, _), value in zip(named, results)]
        program = Program(inputs, results, self.steps)
        program.drop_unread()
        return Translated(program, tuple(self.ports), tuple(outputs), tuple(fixed))

    def input(self, node: torch.fx.Node, port: Port) -> Value:
        given = Value(port.shape, Storage("input", port.size, name=port.name))
        self.values[node] = given
        if port.ctype != "float":
            kind = port.ctype.removesuffix("_t")
            call = Call("input", (), {}, port.shape, port.name, self.steps)
            self.values[node] = call.add(f"from_{kind}", [given], port.shape)
        return given

    def result(self, node: torch.fx.Node, name: str) -> Value:
        """What the node yields, in the memory that the caller of the C function gives."""
        call = Call("output", (), {}, (), name, self.steps)
        value = call.dense(self.resolved(node))
        made = {step.writes.storage for step in self.steps}
        if value.storage not in made or not value.whole or value.storage.pool != "floats":
            value = call.add("copy", [value], value.shape)
        value.storage.pool, value.storage.name = "output", name
        return value

    def take(self, node: torch.fx.Node) -> None:
        """Translates a node; where that fails and failures are collected, goes on with a value of its shape."""
        try:
            self.values[node] = self.translate(node)
        except UsageError as error:
            if self.found is None:
                raise
            self.found.append(error)
            shape = node.meta.get("shape")
            self.values[node] = None if shape is None else Value.floats(tuple(shape))

    def translate(self, node: torch.fx.Node) -> Any:
        name, op = self.name_of(node), node.meta["op"]
        shape = tuple(node.meta.get("shape") or ())
        args, keywords = self.resolved(node.args), self.resolved(dict(node.kwargs))
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            call = Call(op, args, keywords, shape, name, self.steps)
            return (
                bent(call, module)
                if isinstance(module, PiecewiseLinear)
                else layers.packed_layer(call, cast(Any, module))
            )
        if op == "getitem":
            # In place of an unknown one, where failures are collected, a value of its shape.
            return Value.floats(shape) if args[0] is None else args[0][args[1]]
        if not any(isinstance(leaf, Value) for leaf in pytree.tree_leaves((args, keywords))):
            return self.constant(node, args, keywords, name)
        plain = op if op.startswith("__") else op.removesuffix("_")
        made = self.function(Call(plain, args, keywords, shape, name, self.steps), node)
        if isinstance(made, Value) and node.meta.get("shape") is not None and made.shape != shape:
            made = Call(plain, args, keywords, shape, name, self.steps).dense(made).seen_as(shape)
        return made

    def constant(
        self, node: torch.fx.Node, args: tuple[Any, ...], keywords: dict[str, Any], name: str
    ) -> Any:
        """What no input decides is computed now."""
        if node.meta["op"] in DRAWS:
            raise refuse(name, f"{node.meta['op']} draws random numbers; take them as an input of the model")
        with torch.no_grad():
            return cast(Any, node.target)(*args, **keywords)

    def function(self, call: Call, node: torch.fx.Node) -> Any:
        if node.target is setitem:
            base, index, given = call.args
            if any(isinstance(leaf, Value) for leaf in pytree.tree_leaves(index)):
                raise call.refuse("it writes into places that the input decides, which has no C code")
            return views.put(call, call.value(base), index, given)
        if node.target is written:
            return self.seen_again(call, node)
        if call.op in ("to", "type", "int", "long", "short", "char", "byte"):
            return self.converted(call)
        if call.op in MOVES or (call.op == "view" and not any(isinstance(a, torch.dtype) for a in call.args)):
            return self.moved(call, node)
        if call.op in SAME:
            return call.args[0]
        if call.op in LIKE:
            blank = [torch.zeros(x.shape) if isinstance(x, Value) else x for x in call.args]
            return cast(Any, node.target)(*blank, **call.keywords)
        handler = HANDLERS.get(call.op)
        if handler is None:
            raise call.refuse(way_out(call.op))
        return handler(call)

    def moved(self, call: Call, node: torch.fx.Node) -> Any:
        x, *rest = call.args
        if call.op in ("expand_as", "reshape_as", "view_as") and isinstance(rest[0], Value):
            rest = [torch.empty(rest[0].shape)]
        if not isinstance(x, Value) or any(
            isinstance(leaf, Value) for leaf in pytree.tree_leaves((rest, call.keywords))
        ):
            raise call.refuse(f"{call.op} with a tensor that the input decides as its index has no C code")
        found = views.moved(call, cast(Any, node.target), [x, *rest], call.keywords)
        return found if node.meta.get("shape") is None else found[0]

    def converted(self, call: Call) -> Any:
        """Whole numbers are floats here; what is converted to them loses its fraction."""
        x, *rest = call.args
        kinds = [one for one in (*rest, *call.keywords.values()) if isinstance(one, torch.dtype)]
        if any(kind in _DECIDED for kind in kinds):
            raise call.refuse(
                f"it computes in {kinds[0]}; C computes in float32: convert the model first (model.float())"
            )
        if any(kind is torch.bool for kind in kinds):
            return mapped(call, "is_not_zero", x)
        whole = call.op not in ("to", "type") or any(kind in _WHOLE for kind in kinds)
        return mapped(call, "truncated", x) if whole else x

    def seen_again(self, call: Call, node: torch.fx.Node) -> Value:
        """A view after its memory was written through another one."""
        view, by = (cast(torch.fx.Node, one) for one in node.args)
        if (
            not all(isinstance(one, Value) for one in call.args)
            or "memory" not in view.meta
            or "memory" not in by.meta
        ):
            raise call.refuse("it writes in place into memory that other tensors see, which has no C code")
        places = [(tuple(one.meta["shape"]), *one.meta["memory"]) for one in (view, by)]
        return views.rewritten(call, *call.args, *places)

    def resolved(self, argument: object) -> Any:
        """Arguments with values and tensors in place of nodes."""
        if isinstance(argument, torch.fx.Node):
            if argument.op == "get_attr":
                return self.tensors[str(argument.target)].detach()
            return self.values[argument]
        if isinstance(argument, slice):
            return slice(*(self.resolved(one) for one in (argument.start, argument.stop, argument.step)))
        if isinstance(argument, (list, tuple)):
            made = [self.resolved(item) for item in argument]
            return made if isinstance(argument, list) else tuple(made)
        if isinstance(argument, dict):
            return {key: self.resolved(item) for key, item in argument.items()}
        return argument

    def name_of(self, node: torch.fx.Node) -> str:
        """Path of the layer, as the user knows it."""
        if node.op == "call_module":
            return str(node.target).removesuffix(".core")
        paths = [path for path, _ in node.meta.get("frames", ()) if path]
        return paths[-1] if paths else str(node.meta["op"])
