"""A program of torch.export -> an OpenVINO model: packed layers by `openvino_layers`, the rest by OpenVINO's frontend.

program ── decompositions ── constants worked out ── frontend ── model
                               │
                               ├─ calls of binarize::conv become `openvino_layers.layer`
                               └─ tensors of +1 and -1 become bits
"""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import openvino as ov
import torch
import torch.fx
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor
from torch.export import ExportedProgram

import binarize.kernels.operators  # noqa: F401  registers the operator that is looked for
from binarize.errors import UsageError
from binarize.exporters.openvino.layers import Call, layer, signs_constant
from binarize.kernels.geometry import geometry_of

__all__ = ["Translated", "layer_name", "packed_calls", "path_of", "translate"]

# What stands in the graph for a packed layer, and for a tensor of signs: their place in a table. Never run.
_library = torch.library.Library("binarize_openvino", "DEF")
_library.define("layer(Tensor x, int index) -> Tensor")
_library.define("signs(int index) -> Tensor")
_CONV = torch.ops.binarize.conv.default


@dataclass
class Translated:
    """The model, and its packed layers in the order of the program."""

    model: ov.Model
    calls: list[Call] = field(default_factory=list)


def translate(program: ExportedProgram) -> Translated:
    """Raises: UsageError, naming the layer, for an operation that OpenVINO's frontend does not know."""
    with _quiet():
        graph_module = TorchFXPythonDecoder.from_exported_program(program).pt_module
    calls, signs = _prepare(graph_module)
    manager = FrontEndManager()
    frontend = manager.load_by_framework("pytorch")

    def make_layer(context: Any) -> list[Any]:
        index = int(context.get_values_from_const_input(1))
        return [layer(context.get_input(0), calls[index], layer_name(index))]

    def make_signs(context: Any) -> list[Any]:
        return [signs_constant(signs[int(context.get_values_from_const_input(0))]).output(0)]

    frontend.add_extension(ConversionExtension("binarize_openvino.layer.default", make_layer))
    frontend.add_extension(ConversionExtension("binarize_openvino.signs.default", make_signs))
    decoder = TorchFXPythonDecoder(graph_module, dynamic_shapes=False)  # has to outlive the conversion
    try:
        model = frontend.convert(frontend.load(decoder))
    except Exception as error:  # the frontend's own, of no type of their own
        raise _refused(graph_module, str(error)) from error
    return Translated(model, calls)


def layer_name(index: int) -> str:
    """Name of the last operation of a packed layer."""
    return f"binarize/{index}"


def packed_calls(graph_module: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Calls of packed layers, in the order of the program."""
    return [node for node in graph_module.graph.nodes if node.target is _CONV]


def _bound(node: torch.fx.Node) -> dict[str, Any]:
    """Arguments of a call by their names."""
    names = [argument.name for argument in _CONV._schema.arguments]
    return {**dict(zip(names, node.args)), **node.kwargs}


def _prepare(graph_module: torch.fx.GraphModule) -> tuple[list[Call], list[Tensor]]:
    """Puts places in tables where packed layers and tensors of signs were. -> (layers, where signs are -1)."""
    graph = graph_module.graph
    _drop_whole_copies(graph)
    constants = _constants(graph_module)
    calls: list[Call] = []
    signs: list[Tensor] = []
    for node in list(graph.nodes):
        if node.target is _CONV:
            calls.append(_call(node, constants))
            node.args, node.kwargs = (node.args[0], len(calls) - 1), {}
            node.target = torch.ops.binarize_openvino.layer.default
        elif _are_signs(constants.get(node)) and any(user not in constants for user in node.users):
            with graph.inserting_before(node):
                made = graph.call_function(torch.ops.binarize_openvino.signs.default, (len(signs),))
            made.meta = dict(node.meta)
            signs.append(constants[node] < 0)
            node.replace_all_uses_with(made)
    graph.eliminate_dead_code()
    for node in list(graph.nodes):  # arguments that the trace fixed
        if node.op == "placeholder" and not isinstance(node.meta.get("val"), Tensor):
            graph.erase_node(node)
    graph_module.recompile()
    return calls, signs


def _drop_whole_copies(graph: torch.fx.Graph) -> None:
    """Without writes of all elements into new memory, which is how large tensors are worked on in blocks."""
    for node in list(graph.nodes):
        args = node.args
        if node.target is torch.ops.aten.copy.default and _kind(args[0]) == _kind(args[1]):
            node.replace_all_uses_with(args[1])
        elif node.target in _SLICES and _kind(args[_SLICES[node.target]]) == _kind(node):
            node.replace_all_uses_with(args[_SLICES[node.target]])
    graph.eliminate_dead_code()


# Operators on a slice -> place of the argument that they are where the slice is everything.
_SLICES = {torch.ops.aten.slice.Tensor: 0, torch.ops.aten.slice_scatter.default: 1}


def _kind(node: Any) -> tuple[Any, ...]:
    value = node.meta["val"]
    return value.dtype, *value.shape


def _constants(graph_module: torch.fx.GraphModule) -> dict[torch.fx.Node, Tensor]:
    """Values of the nodes that depend on no input."""
    found: dict[torch.fx.Node, Tensor] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr":
            value = operator.attrgetter(node.target)(graph_module)
        elif node.op == "call_function" and all(one in found for one in node.all_input_nodes):
            value = node.target(
                *torch.fx.map_arg(node.args, lambda one: found[one]),
                **torch.fx.map_arg(node.kwargs, lambda one: found[one]),
            )
        else:
            continue
        if isinstance(value, Tensor):
            found[node] = value.detach()
    return found


def _are_signs(value: Tensor | None) -> bool:
    """Whether a constant is a weight of signs, and no row of numbers."""
    if value is None or value.dtype != torch.float32 or value.dim() < 2:
        return False
    return len(value) < value.numel() > value[0].numel() and bool((value.abs() == 1).all())


def _call(node: torch.fx.Node, constants: dict[torch.fx.Node, Tensor]) -> Call:
    given = _bound(node)
    image = given.pop("x").meta["val"]
    path = path_of(node)
    unknown = [key for key in ("residual", "activation") if given.pop(key, None) is not None]
    given.pop("activation_first", None)
    if unknown:
        raise UsageError(
            f"export openvino: {path}: the graph is fused ({unknown[0]}); export the packed model itself"
        )
    values: dict[str, Any] = {
        key: constants[one] if isinstance(one, torch.fx.Node) else one for key, one in given.items()
    }
    geometry = geometry_of(values["bits"], values.pop("sizes"))
    return Call(path, geometry, int(image.shape[2]), int(image.shape[3]), **values)


def path_of(node: torch.fx.Node) -> str:
    """Path of the innermost layer, as the user knows it."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack and stack[-1][0] else "the model"


def _refused(graph_module: torch.fx.GraphModule, text: str) -> UsageError:
    for node in graph_module.graph.nodes:
        name = str(node.target)
        if node.op == "call_function" and re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text):
            return UsageError(
                f"export openvino: {path_of(node)}: OpenVINO's frontend does not translate {name}; "
                "try --format onnx, which OpenVINO reads too"
            )
    return UsageError(f"export openvino: the model: {' '.join(text.split())[:300]}; try --format onnx")


@contextmanager
def _quiet() -> Iterator[None]:
    """The frontend warns of operators that its version of torch had and this one has not."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
