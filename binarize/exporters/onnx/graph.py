"""A packed model as an ONNX graph in which each product of a packed layer is one node, for a format to spell out.

torch.export records the model, torch.onnx translates what is float, and the packed layers become nodes

    Product(x, layer=PATH, size=[...])        of the domain "binarize", which no file is left with

`x` is what stands in front of the layer's own padding, and the result is what `PackedLayer.product` gives.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir
import torch
from torch import Tensor, nn

from binarize.binarizers.nonlinearity import Nonlinearity, piecewise_of
from binarize.errors import UsageError
from binarize.exporters.program import record_program
from binarize.layers.layer import run_parts
from binarize.modules.places import set_everywhere
from binarize.packed.freeze import Example
from binarize.packed.layers import PackedLayer

__all__ = ["BATCH", "DOMAIN", "Recorded", "record_graph", "save_graph"]

DOMAIN = "binarize"
# Name of the open axis.
BATCH = "batch"
# What a protocol buffer holds.
_LARGEST = (1 << 31) - (1 << 20)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Recorded:
    """The graph, the packed layers by their paths, and whether the graph takes batches of any size."""

    model: ir.Model
    layers: dict[str, PackedLayer]
    any_batch: bool


def record_graph(model: nn.Module, example: Example, format: str, opset: int, *, any_batch: bool) -> Recorded:
    """The graph of a packed model. With `any_batch` the batch is left open where the model allows it.

    Raises: UsageError, naming the layer and the reason, for what torch.export or torch.onnx cannot express.
    """
    spelled = copy.deepcopy(model).eval()
    layers = {path: layer for path, layer in spelled.named_modules() if type(layer) is PackedLayer}
    for path, layer in layers.items():
        set_everywhere(spelled, path, _Node.of_layer(layer, path, format).eval())
    for path, module in list(spelled.named_modules()):
        # Its gradient stays behind; where its lines are unknown, its own operations are recorded.
        form = piecewise_of(module) if isinstance(module, Nonlinearity) else None
        if isinstance(form, nn.Module):
            set_everywhere(spelled, path, form.eval())
    program = record_program(spelled, example, format, any_batch=any_batch)
    with _quiet():
        try:
            made = torch.onnx.export(program.exported, dynamo=True, opset_version=opset, verbose=False)
        except torch.onnx.OnnxExporterError as error:
            raise UsageError(f"export {format}: {_said(error, program.exported)}") from error
    assert made is not None
    graph = made.model
    _strip(graph)
    if program.any_batch:
        _name_batch(graph.graph)
    return Recorded(graph, layers, program.any_batch)


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a graph to a file, without a second list of its constants' shapes.

    Raises: UsageError, where it is larger than ONNX files can be.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if size > _LARGEST:
        raise UsageError(
            f"{path.name} would take {size:,} bytes, and an ONNX file has at most {_LARGEST:,}; try --format pt2"
        )
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    path.write_bytes(proto.SerializeToString())


class _Node(PackedLayer):
    """A packed layer whose product is a node of the graph that is recorded. It is never run."""

    path: str
    format: str

    @classmethod
    def of_layer(cls, layer: PackedLayer, path: str, format: str) -> _Node:
        node = cast(_Node, cls.from_bits(layer.form, layer.bits))
        node.take_parts(layer)
        node.path, node.format = path, format
        return node

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        read = x if self.front is None else self.front(x)
        if read.dtype not in _FLOATS:
            raise UsageError(f"it reads {read.dtype}; convert the model to float32 first (model.float())")
        window = self.window
        like = window.slide(window.mirrored(read), read.new_empty(window.weight_shape), size=output_size)
        attributes: dict[str, Any] = {"layer": self.path}
        if output_size is not None:
            attributes["size"] = [int(n) for n in output_size]
        y = torch.onnx.ops.symbolic(
            f"{DOMAIN}::Product",
            (read.float(),),
            attributes,
            dtype=torch.float32,
            shape=like.shape,
            version=1,
        )
        return run_parts(self, x, y.to(x.dtype))


def _strip(model: ir.Model) -> None:
    """Drop traces of source files, and names of steps that say nothing."""
    model.metadata_props.clear()
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string, node.name = None, ""
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = "binarize", None


def _name_batch(graph: ir.Graph) -> None:
    """Call the open axis by its name wherever it appears alone."""
    dims = [value.shape[0] for value in graph.inputs if value.shape]
    names = {dim.value for dim in dims if isinstance(dim, ir.SymbolicDim)}
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape(
                BATCH if isinstance(dim, ir.SymbolicDim) and dim.value in names else dim
                for dim in value.shape
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress, and warns of what the check finds out anyway."""
    loud = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)


def _said(error: Exception, exported: torch.export.ExportedProgram) -> str:
    """The layer and the operator that have no translation, as far as the exporter says."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", "\n".join(causes))
    if found is None:
        return f"the model: {causes[-1].strip().partition(chr(10))[0][:200]}; try --format pt2"
    # The exporter takes operators apart first, aten.special_bessel_j0 into prims.bessel_j0.
    kind = found[1].split(".")[1]
    where = next((_path_of(node) for node in exported.graph.nodes if kind in str(node.target)), "the model")
    return (
        f"{where}: ONNX has no translation of {found[1]}; replace it by operations that torch.onnx knows, or try "
        "--format pt2"
    )


def _path_of(node: torch.fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) or "the model" if stack else "the model"
