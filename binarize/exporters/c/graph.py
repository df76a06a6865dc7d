"""A packed model -> the steps of its C file: recorded once on one sample, then translated node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.binarizers.nonlinearity import PiecewiseLinear, piecewise_of
from binarize.binarizers.xnorpp import ChannelScale
from binarize.capture.tape import Recording
from binarize.errors import UsageError
from binarize.exporters.c import floats, layers
from binarize.exporters.c.elementwise import bent
from binarize.exporters.c.recorded import recorded
from binarize.exporters.c.steps import Program, Step, Value, refuse
from binarize.exporters.c.views import MOVES, moved
from binarize.layers.layer import Threshold
from binarize.packed.layers import PackedLayer

__all__ = ["make_program"]


def make_program(model: nn.Module, sample: Tensor) -> Program:
    """The steps of a packed model on one sample (batch of 1).

    Raises: UsageError, naming the layer and the reason, for what C code here cannot express.
    """
    return _Translation(recorded(model, sample)).program(sample)


_Handler = Callable[[Value, Any, str], "Step | Value"]
# Modules that recordings keep as one node, by their exact class.
_MODULES: dict[type[nn.Module], _Handler] = {
    PackedLayer: layers.packed_layer,
    nn.Conv1d: layers.float_conv,
    nn.Conv2d: layers.float_conv,
    nn.Linear: layers.float_linear,
    nn.BatchNorm1d: floats.batch_norm,
    nn.BatchNorm2d: floats.batch_norm,
    Threshold: floats.threshold,
    ChannelScale: floats.channel_scale,
}
# Modules that do what a function does, with their attributes as its arguments.
_POOL = ("kernel_size", "stride", "padding", "ceil_mode")
_AS_FUNCTIONS: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.MaxPool1d: ("max_pool1d", (*_POOL, "dilation", "return_indices")),
    nn.MaxPool2d: ("max_pool2d", (*_POOL, "dilation", "return_indices")),
    nn.AvgPool1d: ("avg_pool1d", (*_POOL, "count_include_pad")),
    nn.AvgPool2d: ("avg_pool2d", (*_POOL, "count_include_pad", "divisor_override")),
    nn.AdaptiveAvgPool1d: ("adaptive_avg_pool1d", ("output_size",)),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d", ("output_size",)),
}
# Modules that leave numbers and their order alone in evaluation mode, by name: some are timm's or torchvision's.
_RESHAPES = frozenset(
    ("AlphaDropout", "DropPath", "Dropout", "Dropout1d", "Dropout2d", "Flatten", "Identity", "StochasticDepth",
     "Unflatten")
)  # fmt: skip


class _Translation:
    """Node by node from the recording to steps."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.modules = dict(recording.root.named_modules())
        self.tensors = {**dict(recording.root.named_parameters()), **dict(recording.root.named_buffers())}
        self.values: dict[torch.fx.Node, Value] = {}
        # Nodes that yield several values.
        self.parts: dict[Any, list[Value]] = {}
        self.steps: list[Step] = []

    def program(self, sample: Tensor) -> Program:
        nodes = list(self.recording.graph.nodes)
        (start,) = [node for node in nodes if node.op == "placeholder"]
        given = Value.floats(tuple(sample.shape[1:]))
        given.storage.pool = "input"
        self.values[start] = given
        for node in nodes:
            if node.op == "call_function" and node.meta["op"] in MOVES:
                self.move(node)
            elif node.op in ("call_module", "call_function"):
                self.values[node] = self.translate(node)
        (end,) = nodes[-1].args
        if not isinstance(end, torch.fx.Node) or end not in self.values:
            raise refuse("the model", "its forward yields something else than one tensor made from its input")
        return Program(given, self.values[end], self.steps)

    def translate(self, node: torch.fx.Node) -> Value:
        name, op = self.name_of(node), node.meta["op"]
        shape = node.meta.get("shape")
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            (argument,) = node.args
            value = self.value(argument, name)
            made: Step | Value
            if op in _RESHAPES:
                made = self.reshaped(value, op, shape, name)
            elif type(module) in _MODULES:
                made = _MODULES[type(module)](value, module, name)
            elif type(module) in _AS_FUNCTIONS:
                function, attributes = _AS_FUNCTIONS[type(module)]
                keywords = {key: getattr(module, key) for key in attributes}
                made = floats.FUNCTIONS[function]((value,), keywords, shape, name)
            else:
                made = self.bent(value, module, name)
        else:
            made = self.function(op, node, shape, name)
        if isinstance(made, Step):
            self.steps.append(made)
            made = made.writes
        if shape is None or tuple(shape[1:]) != made.shape or shape[0] != 1:
            raise refuse(name, f"{op} yields {shape}; expected the batch of 1 as its first axis")
        return made

    def bent(self, x: Value, module: nn.Module, name: str) -> Value:
        """What a nonlinearity yields that says its straight lines."""
        form = piecewise_of(module)
        if not isinstance(form, PiecewiseLinear):
            why = "" if type(module).__module__.startswith("torch.") else f": {form}"
            raise refuse(name, f"there is no C code for {type(module).__name__}{why}")
        steps = bent(x, form, name)
        self.steps += steps
        return steps[-1].writes if steps else x

    def function(self, op: str, node: torch.fx.Node, shape: object, name: str) -> Step | Value:
        if op in floats.RESHAPES:
            return self.reshaped(self.value(node.args[0], name), op, shape, name)
        if op == "getitem" and node.args[0] in self.parts:
            return self.parts[node.args[0]][node.args[1]]  # type: ignore[index]
        handler = floats.FUNCTIONS.get(op)
        if handler is None:
            raise refuse(name, f"there is no C code for the operation {op}")
        try:
            return handler(
                self.resolved(node.args, name), self.resolved(dict(node.kwargs), name), shape, name
            )
        except TypeError as error:
            raise refuse(name, f"{op} with arguments of a kind that has no C code: {error}") from error

    def move(self, node: torch.fx.Node) -> None:
        name = self.name_of(node)
        x, *args = self.resolved(node.args, name)
        if not isinstance(x, Value) or any(isinstance(a, (Value, Tensor)) for a in pytree.tree_leaves(args)):
            raise refuse(name, f"{node.meta['op']} with a tensor as its index has no C code")
        steps = moved(x, cast(Any, node.target), args, dict(node.kwargs), name)
        self.steps += steps
        self.parts[node] = [step.writes for step in steps]
        if node.meta.get("shape") is not None:
            self.values[node] = steps[0].writes

    def reshaped(self, value: Value, op: str, shape: Any, name: str) -> Value:
        if shape is None or shape[:1] != (1,):
            raise refuse(name, f"{op} yields {shape}; expected the batch of 1 as its first axis")
        return value.seen_as(tuple(shape[1:]))

    def resolved(self, argument: object, name: str) -> Any:
        """Arguments with values and tensors in place of nodes."""
        if isinstance(argument, torch.fx.Node):
            if argument.op == "get_attr":
                tensor = self.tensors.get(str(argument.target))
                if tensor is None:
                    raise refuse(name, "it uses a tensor that is neither parameter nor buffer of the model")
                return tensor.detach()
            return self.value(argument, name)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.resolved(item, name) for item in argument)
        if isinstance(argument, dict):
            return {key: self.resolved(item, name) for key, item in argument.items()}
        return argument

    def value(self, node: object, name: str) -> Value:
        if not isinstance(node, torch.fx.Node) or node not in self.values:
            raise refuse(name, "it reads something else than a tensor made from the input")
        return self.values[node]

    def name_of(self, node: torch.fx.Node) -> str:
        """Path of the layer, as the user knows it."""
        if node.op == "call_module":
            return str(node.target).removesuffix(".core")
        paths = [path for path, _ in node.meta.get("frames", ()) if path]
        return paths[-1] if paths else str(node.meta["op"])


def check_sample(sample: object) -> Tensor:
    """The sample, if it is one that C can take. Raises: UsageError."""
    if not isinstance(sample, Tensor) or sample.dtype != torch.float32 or sample.dim() < 2:
        raise UsageError("export c: the input must be one float32 tensor with a batch axis")
    return sample[:1].detach().cpu().contiguous()
