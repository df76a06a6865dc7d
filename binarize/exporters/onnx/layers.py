"""Products of packed layers in ONNX operators: the formula of `kernels.reference`, in its order of rounding.

    y = A * dot + C * Sa + ((E * Sw + F * n) + B)

A format says how signs, weights and whole numbers are written (`Dialect`). The sums over the taps inside the image,
Sw and n, are constants: they are written as convolutions of ones, which runtimes compute when they load the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import onnx_ir as ir
import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.exporters.onnx.graph import DOMAIN, Recorded
from binarize.exporters.onnx.nodes import Nodes, without_defaults
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = ["Dialect", "Probe", "spell_out"]

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Dialect(Protocol):
    """How a format writes what is binary."""

    def signs(self, nodes: Nodes, x: ir.Value, threshold: ir.Value | None, zero_one: bool) -> ir.Value:
        """+1 (with `zero_one` 1) where x >= threshold, or 0 where there is none, else -1 (0)."""

    def weight(self, nodes: Nodes, name: str, lower: Tensor, *, transposed: bool) -> ir.Value:
        """-1 where `lower` is set, else +1; two axes are exchanged with `transposed`."""

    def whole(self, nodes: Nodes, dot: ir.Value) -> ir.Value:
        """A sum of whole numbers, as one."""


@dataclass(frozen=True)
class Probe:
    """One call of a packed layer in the finished graph: the names of what it reads and gives."""

    layer: str
    reads: str
    gives: str
    size: tuple[int, ...] | None


def spell_out(recorded: Recorded, dialect: Dialect, format: str) -> list[Probe]:
    """Replace each product of the graph by the operators that compute it, in place.

    Raises: UsageError, naming the layer, where its image has no known size.
    """
    model, probes = recorded.model, list[tuple[str, ir.Value, ir.Value, Any]]()
    weights: dict[str, ir.Value] = {}
    calls: Counter[str] = Counter()
    for node in [node for node in model.graph if node.domain == DOMAIN]:
        path = node.attributes["layer"].as_string()
        size = tuple(node.attributes["size"].as_ints()) if "size" in node.attributes else None
        (x,), (old,) = node.inputs, node.outputs
        assert x is not None
        layer, nodes = recorded.layers[path], Nodes(model.graph)
        if path not in weights:
            weights[path] = _weight(nodes, path, layer, dialect)
        image = _image(layer.window, x, size, f"export {format}: {path}")
        product = _Product(nodes, path, layer, dialect, weights[path], image)
        calls[path] += 1
        y = product.of(x, path if calls[path] == 1 else f"{path}.call{calls[path]}")
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], nodes.tape.nodes, [old], [y])
        probes.append((path, x, y, size))
    model.opset_imports.pop(DOMAIN, None)
    _forget_shapes(model.graph)
    return [Probe(path, str(x.name), str(y.name), size) for path, x, y, size in probes]


def _forget_shapes(graph: ir.Graph) -> None:
    """Shapes between the first step and the last are inferred by whoever needs them."""
    ends = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = value.type = None


def _weight(nodes: Nodes, path: str, layer: PackedLayer, dialect: Dialect) -> ir.Value:
    window = layer.window
    lower = window.layer_order(layer.lower)
    return dialect.weight(nodes, path, lower, transposed=window.kind == "linear")


@dataclass(frozen=True)
class _Image:
    """What the window is slid over: its size, where that is known, and what is added to reach the output's."""

    spatial: tuple[int, ...] | None
    extra: tuple[int, ...]


def _image(window: Window, x: ir.Value, size: tuple[int, ...] | None, where: str) -> _Image:
    dims = list(x.shape[2:]) if x.shape is not None else [None]
    known = tuple(dim for dim in dims if isinstance(dim, int))
    spatial = known if len(known) == len(dims) else None
    if spatial is None and window.kind != "linear":
        raise UsageError(f"{where}: the size of its image is not known when the model is recorded")
    if window.kind != "conv_transpose":
        return _Image(spatial, ())
    blank = torch.empty(1, 1, *(spatial or ()), device="meta")
    return _Image(spatial, tuple(window._output_padding(blank, None if size is None else list(size))))


class _Product:
    """The formula on one input."""

    def __init__(
        self, nodes: Nodes, path: str, layer: PackedLayer, dialect: Dialect, weight: ir.Value, image: _Image
    ) -> None:
        self.nodes, self.path, self.layer, self.dialect = nodes, path, layer, dialect
        self.window, self.weight, self.image = layer.window, weight, image

    def of(self, x: ir.Value, name: str) -> ir.Value:
        """The layer's result; the product of its first plane is the node of that name."""
        nodes, layer = self.nodes, self.layer
        read = self.mirrored(x)
        planes = [read] if layer.float_input else list(self.planes(read))
        y: ir.Value | None = None
        for k, plane in enumerate(planes):
            dot = self.summed(plane, self.weight, layer.pad_value, self.window.groups, "" if k else name)
            term = nodes.op("Mul", self.table(f"scale.{k}", layer.scale[k]), dot)
            y = term if y is None else nodes.op("Add", y, term)
        if layer.window_scale is not None:
            sums = self.window_sums(planes[0])
            term = nodes.op("Mul", self.table("window_scale", layer.window_scale), sums)
            y = nodes.op("Add", y, term)
        return nodes.op("Add", y, self.constants())

    def planes(self, x: ir.Value) -> Iterator[ir.Value]:
        """The bit planes of the input."""
        rows = self.layer.threshold
        for k in range(1 if rows is None else len(rows)):
            threshold = None if rows is None else self.table(f"threshold.{k}", rows[k])
            yield self.dialect.signs(self.nodes, x, threshold, self.layer.zero_one)

    def window_sums(self, plane: ir.Value) -> ir.Value:
        """Sa, for every channel of a group the same."""
        window, groups = self.window, self.window.groups
        sums = self.summed(plane, self.ones(groups), self.layer.pad_value, groups)
        if groups == 1:
            return sums
        of_channel = torch.arange(groups).repeat_interleave(window.out_channels // groups)
        return self.nodes.op("Gather", sums, self.nodes.constant(f"{self.path}.group", of_channel), axis=1)

    def constants(self) -> ir.Value:
        """(E * Sw + F * n) + B."""
        nodes, layer, window = self.nodes, self.layer, self.window
        shift = self.table("shift", layer.shift)
        if not layer.outside:
            return shift
        padded, outside = abs(layer.pad_value), nodes.number(layer.outside)
        # E and F are products of A and C, that a runtime takes when it loads the file.
        sums = self.summed(self.inside(window.in_channels), self.weight, padded, window.groups)
        edge = nodes.op("Mul", nodes.op("Mul", self.table("scale.0", layer.scale[0]), outside), sums)
        if layer.window_scale is not None:
            count = self.summed(self.inside(window.in_channels // window.groups), self.ones(1), padded, 1)
            centre = nodes.op("Mul", self.table("window_scale", layer.window_scale), outside)
            edge = nodes.op("Add", edge, nodes.op("Mul", centre, count))
        return nodes.op("Add", edge, shift)

    def inside(self, channels: int) -> ir.Value:
        """An image of ones."""
        assert self.image.spatial is not None
        sizes = self.nodes.sizes(1, channels, *self.image.spatial)
        return self.nodes.op("Expand", self.nodes.number(1.0), sizes)

    def ones(self, groups: int) -> ir.Value:
        """A filter of ones a group, in the order of the layer's weight."""
        window = self.window
        inputs = window.in_channels // window.groups
        shapes = {"conv": (groups, inputs), "conv_transpose": (groups * inputs, 1), "linear": (inputs, 1)}
        sizes = self.nodes.sizes(*shapes[window.kind], *window.kernel)
        return self.nodes.op("Expand", self.nodes.number(1.0), sizes)

    def summed(
        self, x: ir.Value, weight: ir.Value, pad_value: float, groups: int, name: str = ""
    ) -> ir.Value:
        """A sum over the window, of whole numbers where the inputs are."""
        y = self.slide(x, weight, pad_value, groups, name)
        return y if self.layer.float_input else self.dialect.whole(self.nodes, y)

    def slide(self, x: ir.Value, weight: ir.Value, pad_value: float, groups: int, name: str) -> ir.Value:
        """The convolution or matrix product of an input with `mirrored` padding."""
        window, nodes = self.window, self.nodes
        if window.kind == "linear":
            return nodes.op("MatMul", x, weight, name=name)
        options: dict[str, Any] = {"strides": window.stride, "dilations": window.dilation, "group": groups}
        if window.kind == "conv_transpose":
            kind = "ConvTranspose"
            options |= {"pads": window.padding * 2, "output_padding": self.image.extra}
        else:
            kind, pads = "Conv", self.pads() if window.padding_mode in ("zeros", "same") else []
            if any(pads) and pad_value:
                x, pads = self.padded(x, pads, "constant", nodes.number(float(pad_value))), []
            options["pads"] = pads
        return nodes.op(kind, x, weight, name=name, **without_defaults(options))

    def mirrored(self, x: ir.Value) -> ir.Value:
        """x with the padding that repeats its own values."""
        mode = _MODES.get(self.window.padding_mode)
        return x if mode is None else self.padded(x, self.pads(), mode, None)

    def padded(self, x: ir.Value, pads: list[int], mode: str, value: ir.Value | None) -> ir.Value:
        axes = len(self.window.kernel)
        sizes = self.nodes.sizes(0, 0, *pads[:axes], 0, 0, *pads[axes:])
        return self.nodes.op("Pad", x, sizes, *([] if value is None else [value]), mode=mode)

    def pads(self) -> list[int]:
        """Before each axis, then behind each axis, the first axis first."""
        assert self.image.spatial is not None
        sides = self.window.sides(torch.empty(1, 1, *self.image.spatial, device="meta"))
        return [*sides[::2][::-1], *sides[1::2][::-1]]

    def table(self, name: str, row: Tensor) -> ir.Value:
        """One number a channel, along the channels; a single one where all are equal."""
        if bool((row == row[0]).all()):
            return self.nodes.number(row[0].item())
        shape = (-1,) if self.window.kind == "linear" else (1, -1, *[1] * len(self.window.kernel))
        return self.nodes.constant(f"{self.path}.{name}", row.reshape(shape))
