"""An ONNX file of standard operators: one bit a binary weight, unpacked in the graph when a runtime loads it.

    sign       Where(x < threshold, -1, +1)
    weight     uint8 rows of the canonical stream -> Gather from a table of 256 bytes, 8 signs each -> Reshape
    product    Conv, ConvTranspose or MatMul of signs, then Round
    behind it  Mul and Add, in the order of `kernels.reference`

Sums of signs are whole numbers below 2^24, so float32 holds them exactly: a binary layer gives the packed layer's
bits. Round keeps it so: without it a runtime may multiply the weights by the scales behind them, or take a fast
algorithm that is exact but for the last digits. The table is computed in the graph from the numbers 0 to 255.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from binarize.exporters.export import Written
from binarize.exporters.onnx.check import check_file
from binarize.exporters.onnx.graph import record_graph, save_graph
from binarize.exporters.onnx.layers import spell_out
from binarize.exporters.onnx.nodes import Nodes
from binarize.exporters.origin import origin_of
from binarize.exporters.program import batch_size, kept_layers, refuse_bfloat16
from binarize.exporters.theory import constants_in_theory
from binarize.kernels.bits import pack_bits
from binarize.packed.freeze import Example
from binarize.report.units import percent, size

__all__ = ["OPSET", "Standard", "write"]

# BitwiseAnd came with 18, Pad's mode "wrap" with 19.
OPSET = 20


def write(model: nn.Module, example: Example, path: Path) -> Written:
    """Write the file and compare what ONNX Runtime makes of it with the packed model.

    Raises: UsageError, naming the layer and the reason, for what ONNX does not express; CheckError, where the file
    computes something else.
    """
    refuse_bfloat16(model, "onnx", "ONNX Runtime")
    recorded = record_graph(model, example, "onnx", OPSET, any_batch=True)
    probes = spell_out(recorded, Standard(), "onnx")
    recorded.model.metadata_props.update(origin_of(model))
    save_graph(recorded.model, path)
    checked = check_file(path, model, probes, example, recorded.any_batch)
    theory, file = constants_in_theory(model), path.stat().st_size
    over = (
        f"theory {size(theory)}: one bit a binary weight, and numbers; {percent(file / theory - 1)} over it"
    )
    only = None if recorded.any_batch else batch_size(example)
    batch = "Batches of any size." if recorded.any_batch else f"Takes a batch of {only} only, the example's."
    facts = {
        "bytes": file,
        "theory": theory,
        "opset": OPSET,
        "any_batch": recorded.any_batch,
        "batch": only,
        **checked.to_json(),
    }
    return Written((("file", size(file), over),), (batch, *checked.lines()), kept_layers(model), facts)


class Standard:
    """The dialect of standard operators."""

    def signs(self, nodes: Nodes, x: ir.Value, threshold: ir.Value | None, zero_one: bool) -> ir.Value:
        limit = nodes.number(0.0) if threshold is None else threshold
        lower = nodes.number(0.0 if zero_one else -1.0)
        return nodes.op("Where", nodes.op("Less", x, limit), lower, nodes.number(1.0))

    def weight(self, nodes: Nodes, name: str, lower: Tensor, *, transposed: bool) -> ir.Value:
        rows, filter_size = len(lower), math.prod(lower.shape[1:])
        bits = nodes.constant(f"{name}.bits", pack_bits(lower))
        signs = nodes.op("Gather", self.table(nodes), nodes.op("Cast", bits, to=ir.DataType.INT32))
        if filter_size % 8:
            signs = nodes.op("Reshape", signs, nodes.sizes(rows, -1))
            signs = nodes.op("Slice", signs, nodes.sizes(0), nodes.sizes(filter_size), nodes.sizes(1))
        weight = nodes.op("Reshape", signs, nodes.sizes(*lower.shape))
        return nodes.op("Transpose", weight, perm=[1, 0]) if transposed else weight

    def whole(self, nodes: Nodes, dot: ir.Value) -> ir.Value:
        return nodes.op("Round", dot)

    def __init__(self) -> None:
        self._table: ir.Value | None = None

    def table(self, nodes: Nodes) -> ir.Value:
        """The eight signs of each byte, lowest bit first: (256, 8)."""
        if self._table is None:
            codes = nodes.constant("bytes", np.arange(256, dtype=np.uint8)[:, None])
            shifts = nodes.constant("shifts", np.arange(8, dtype=np.uint8))
            one = nodes.constant("one_bit", np.array(1, dtype=np.uint8))
            bits = nodes.op("BitwiseAnd", nodes.op("BitShift", codes, shifts, direction="RIGHT"), one)
            is_lower = nodes.op("Cast", bits, to=ir.DataType.BOOL)
            self._table = nodes.op("Where", is_lower, nodes.number(-1.0), nodes.number(1.0))
        return self._table
