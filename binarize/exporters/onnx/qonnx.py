"""A QONNX file, for FINN and other compilers of dataflow: float operators around BipolarQuant.

    sign       BipolarQuant(x - threshold, scale 1):  -1 where its input is below 0, else +1
    weight     BipolarQuant of +1 and -1, scale 1
    product    Conv, ConvTranspose or MatMul of both
    behind it  Mul and Add, in the order of `kernels.reference`, for FINN's streamlining to move

BipolarQuant is of the domain "qonnx.custom_op.general" (Pappalardo et al. 2022, https://arxiv.org/abs/2206.07527).
Weights are stored as floats, as QONNX does: a file of 32 bits a weight. The batch is 1.

Padding comes after the sign. A padded 0 is no bipolar number: QONNX computes it, but FINN pads streams only with
numbers of their own type, so a model for FINN pads with -1 or 1 (`pad_value` of the scheme). Those paddings are Pad
nodes of their own behind the BipolarQuant.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx import ModelProto, helper
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.exporters.export import Written
from binarize.exporters.onnx.check import check_file
from binarize.exporters.onnx.graph import record_graph, save_graph
from binarize.exporters.onnx.layers import spell_out
from binarize.exporters.onnx.nodes import Nodes
from binarize.exporters.origin import origin_of
from binarize.exporters.program import kept_layers, with_rows
from binarize.packed.freeze import Example
from binarize.packed.layers import PackedLayer
from binarize.report.units import size

__all__ = ["DOMAIN", "Bipolar", "define", "write"]

DOMAIN = "qonnx.custom_op.general"
_OPSET = 18
# Layers that a warning names.
_NAMED = 3


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the file and compare it with the packed model, its BipolarQuant replaced by its definition.

    Raises: UsageError, naming the layer and the reason, for what QONNX does not express; CheckError, where the file
    computes something else.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, PackedLayer)}
    for name, layer in layers.items():
        _refuse(name, layer)
    one = with_rows(example, 1, seed=1)
    recorded = record_graph(model, one, "qonnx", _OPSET, any_batch=False)
    probes = spell_out(recorded, Bipolar(), "qonnx")
    recorded.model.opset_imports[DOMAIN] = 1
    recorded.model.metadata_props.update(origin_of(model))
    save_graph(recorded.model, path)
    checked = check_file(path, model, probes, one, any_batch=False, define=define)
    quants = sum(node.op_type == "BipolarQuant" for node in recorded.model.graph)
    row = ("file", size(path.stat().st_size), "QONNX stores a binary weight as a float")
    facts = {"bytes": path.stat().st_size, "opset": _OPSET, "batch": 1, "bipolar_quants": quants}
    facts |= checked.to_json()
    said = f"{quants} BipolarQuant; takes a batch of 1 only; checked with each of them as its definition."
    return Written((row,), (said, *checked.lines()), (*_for_finn(layers), *kept_layers(model)), facts)


def _refuse(name: str, layer: PackedLayer) -> None:
    """Raises: UsageError, where a layer has no bipolar input or weight that QONNX could name."""
    if layer.window.padding_mode in ("reflect", "replicate", "circular"):
        raise UsageError(
            f'export qonnx: {name}: padding_mode "{layer.window.padding_mode}" is none that QONNX tools read; use '
            '"zeros" with pad_value -1 or 1, or --format onnx'
        )


def _for_finn(layers: dict[str, PackedLayer]) -> tuple[str, ...]:
    """Warnings of what is valid QONNX, and FINN does not build."""
    zeros = [name for name, layer in layers.items() if _pads_with_zero(layer)]
    several = [name for name, layer in layers.items() if len(layer.scale) > 1]
    said = []
    if zeros:
        said.append(
            f"{_listed(zeros)}: padded with 0 behind the sign, which is no bipolar number; FINN refuses to pad a "
            "bipolar stream with it: give the scheme `pad_value: -1` or 1"
        )
    if several:
        said.append(f"{_listed(several)}: several thresholds an input, each with a convolution of its own")
    return tuple(said)


def _pads_with_zero(layer: PackedLayer) -> bool:
    bipolar = not layer.float_input and not layer.zero_one
    return bipolar and layer.window.kind == "conv" and layer.window.pads and not layer.pad_value


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def define(proto: ModelProto) -> ModelProto:
    """The model with the definition of BipolarQuant as a function in it, for runtimes that do not know it."""
    body = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Less", ["x", "zero"], ["below"]),
        helper.make_node("Neg", ["scale"], ["lower"]),
        helper.make_node("Where", ["below", "lower", "scale"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", _OPSET)]
    proto.functions.append(helper.make_function(DOMAIN, "BipolarQuant", ["x", "scale"], ["y"], body, opsets))
    return proto


class Bipolar:
    """The dialect of BipolarQuant."""

    def signs(self, nodes: Nodes, x: ir.Value, threshold: ir.Value | None, zero_one: bool) -> ir.Value:
        moved = x if threshold is None else nodes.op("Sub", x, threshold)
        signs = self._quant(nodes, moved)
        if not zero_one:
            return signs
        half = nodes.number(0.5)
        return nodes.op("Add", nodes.op("Mul", signs, half), half)

    def weight(self, nodes: Nodes, name: str, lower: Tensor, *, transposed: bool) -> ir.Value:
        signs = 1 - 2 * lower.float()
        return self._quant(nodes, nodes.constant(f"{name}.weight", signs.t() if transposed else signs))

    def whole(self, nodes: Nodes, dot: ir.Value) -> ir.Value:
        return dot

    def _quant(self, nodes: Nodes, x: ir.Value) -> ir.Value:
        return nodes.op("BipolarQuant", x, nodes.number(1.0), domain=DOMAIN)
