"""New nodes of an ONNX graph, and constants by their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

__all__ = ["Nodes", "without_defaults"]


class Nodes:
    """New nodes of a graph, and constants by their names, each of them once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.tape = ir.tape.Tape()

    def op(
        self, kind: str, *inputs: ir.Value | None, domain: str = "", name: str = "", **attributes: Any
    ) -> ir.Value:
        """The result of a new node."""
        return self.tape.op(kind, inputs, attributes, domain=domain, name=name)

    def constant(self, name: str, value: Tensor | np.ndarray[Any, Any]) -> ir.Value:
        """The constant of this name, made when it is asked for first."""
        if name not in self.graph.initializers:
            table = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
            initializer = self.tape.initializer(ir.tensor(table, name=name))
            self.graph.register_initializer(initializer)
        return self.graph.initializers[name]

    def sizes(self, *sizes: int) -> ir.Value:
        """A constant vector of sizes."""
        return self.constant("sizes." + ".".join(map(str, sizes)), np.array(sizes, dtype=np.int64))

    def number(self, value: float) -> ir.Value:
        """A constant of one number."""
        return self.constant(f"number.{value!r}", np.array(value, dtype=np.float32))


def without_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """The attributes that ONNX would not assume anyway: steps and groups of 1, padding of 0."""
    assumed = {"strides": {1}, "dilations": {1}, "pads": {0}, "output_padding": {0}}
    return {
        name: value if name == "group" else list(value)
        for name, value in options.items()
        if (value != 1 if name == "group" else not set(value) <= assumed[name])
    }
