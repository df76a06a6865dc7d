"""One call of `binarize::conv` in OpenVINO's operators, with the formula and the order of rounding of `kernels.reference`.

    x ── FakeQuantize to 0 / 1 ── BinaryConvolution ── dot ──┐
    x ── x >= threshold ? 1 : -1 ── Convolution ── Round ────┴── A * dot + C * Sa + constant

BinaryConvolution is taken where OpenVINO computes it right (`openvino_limits`). A convolution of +-1 in float32 is
exact: its sums are integers below 2^24.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset1, opset5, opset8
from torch import Tensor

from binarize.exporters.openvino.limits import why_float
from binarize.kernels import reference
from binarize.kernels.bits import unpack_bits
from binarize.kernels.geometry import Geometry

__all__ = ["Call", "layer", "signs_constant"]

_TINY = np.float32(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Call:
    """The constants of one call, and the size of the image that it reads."""

    path: str
    geometry: Geometry
    height: int
    width: int
    bits: Tensor
    scale: Tensor
    shift: Tensor
    threshold: Tensor | None = None
    zero_one: bool = False
    window_scale: Tensor | None = None
    border: Tensor | None = None


def layer(x: Any, call: Call, name: str) -> Any:
    """The output of the call. The step that compares the input is named NAME/sign, the last one NAME."""
    if x.get_element_type() != ov.Type.f32:
        x = opset1.convert(x, "f32").output(0)
    rows = torch.zeros(1, call.geometry.in_channels)
    if call.threshold is not None:
        rows = call.threshold.reshape(-1, call.geometry.in_channels)
    products = [_Product(x, row, call, f"{name}/sign{k or ''}") for k, row in enumerate(rows)]
    lower = unpack_bits(call.bits, call.geometry.weight_shape)
    scales = call.scale.reshape(len(rows), -1)
    terms = [opset1.multiply(product.dot(lower), _channels(row)) for product, row in zip(products, scales)]
    if call.window_scale is not None:
        terms.append(opset1.multiply(products[0].window_sum(), _channels(call.window_scale)))
    if len(terms) > 1 or call.border is not None:
        terms = [_rounded_by_itself(term) for term in terms]
    y = functools.reduce(opset1.add, [*terms, _constant(call)])
    y.set_friendly_name(name)
    return y.output(0)


class _Product:
    """Products of one bit plane of an input."""

    def __init__(self, x: object, threshold: Tensor, call: Call, name: str) -> None:
        self.geometry, self.zero_one = call.geometry, call.zero_one
        self.binary = why_float(call.geometry) is None
        if self.binary:
            self.values = opset1.fake_quantize(x, *[_last_below(threshold)] * 2, _number(0), _number(1), 2)
            self.values.set_friendly_name(name)
            return
        upper = opset1.greater_equal(x, _channels(threshold))
        upper.set_friendly_name(name)
        self.values = opset1.select(upper, _number(1), _number(0 if call.zero_one else -1))

    def dot(self, lower: Tensor) -> Any:
        """Integers: the sum of input times weight."""
        g = self.geometry
        top, bottom, left, right = g.padding
        if not self.binary:
            return self._float_dot(lower)
        # Of inputs that are 1 or 0, what lies outside is one of them.
        pad = (1 if g.pad_value == 1 else -1) if self.zero_one else g.pad_value
        upper = np.packbits((~lower).flatten().numpy(), bitorder="little")
        weight = _bits(upper, lower.shape)
        y = opset1.binary_convolution(
            self.values, weight, list(g.stride), [top, left], [bottom, right], list(g.dilation), "xnor-popcount",
            float(pad),
        )  # fmt: skip
        if not self.zero_one:
            return y
        # sum a w with a = (b + 1) / 2
        sums = (1 - 2 * lower.flatten(1).float()).sum(1)
        return _integers(opset1.multiply(opset1.add(y, _channels(sums)), _number(0.5)))

    def window_sum(self) -> Any:
        """Integers: the sum of the input over each window; one a filter where there are groups."""
        g = self.geometry
        filters = g.out_channels if g.groups > 1 else 1
        return self.dot(torch.zeros(filters, *g.weight_shape[1:], dtype=torch.bool))

    def _float_dot(self, lower: Tensor) -> Any:
        g, values = self.geometry, self.values
        top, bottom, left, right = g.padding
        begins, ends = [top, left], [bottom, right]
        if g.pad_value and any(g.padding):
            around = [opset1.constant(np.array([0, 0, *sides], np.int64)) for sides in (begins, ends)]
            values = opset1.pad(values, *around, "constant", _number(g.pad_value))
            begins = ends = [0, 0]
        steps = (list(g.stride), begins, ends, list(g.dilation))
        if g.groups > 1:
            weight = signs_constant(lower.unflatten(0, (g.groups, -1)))
            y = opset1.group_convolution(values, weight, *steps)
        else:
            y = opset1.convolution(values, signs_constant(lower), *steps)
        return _integers(y)


def _integers(y: object) -> Any:
    """Rounds what is integers already: absorbs fast algorithms, and keeps OpenVINO from multiplying scales beforehand."""
    return opset5.round(y, "half_to_even")


def _rounded_by_itself(y: object) -> Any:
    """Changes no number, but keeps OpenVINO from adding to a product before it is rounded."""
    return opset1.clamp(y, -_LARGEST, _LARGEST)


def signs_constant(lower: Tensor) -> Any:
    """+1 and -1 in float32, -1 where `lower` is set: stored as bits, read from the highest of each byte."""
    upper = np.packbits((~lower).flatten().numpy(), bitorder="big")
    ones = opset1.convert(_bits(upper, lower.shape), "f32")
    return opset1.subtract(opset1.multiply(ones, _number(2)), _number(1))


def _bits(stream: Any, shape: Any) -> Any:
    # The bytes stay alive as long as the constant: it copies them out of a tensor of its own.
    tensor = ov.Tensor(ov.Type.u1, ov.Shape(list(shape)))
    tensor.data[:] = stream
    return ov.op.Constant(tensor)


def _last_below(threshold: Tensor) -> Any:
    """The largest numbers x for which x >= threshold is false: FakeQuantize asks for x > limit.

    Numbers between 0 and the smallest normal one count as 0 with the sign that makes 0 itself compare right: OpenVINO
    may flush them.
    """
    limit = np.nextafter(threshold.numpy(), np.float32(-np.inf), dtype=np.float32)
    flushed = np.where(threshold.numpy() > 0, np.float32(0), -_TINY)
    limit = np.where(np.abs(limit) < _TINY, flushed, limit)
    return _channels(torch.from_numpy(limit))


def _constant(call: Call) -> Any:
    """What is added last: the shift, and what a zero-padded border is off by."""
    if call.border is None:
        return _channels(call.shift)
    sums, count = reference.inside_sums(call.bits, call.geometry, call.height, call.width)
    per_weight, per_count = (row.view(1, -1, 1, 1) for row in call.border)
    table = per_weight * sums.float() + per_count * count.float() + call.shift.view(1, -1, 1, 1)
    # Rows and columns of the inside are all the same.
    rows, row = torch.unique(table, dim=2, return_inverse=True)
    small, column = torch.unique(rows, dim=3, return_inverse=True)
    if 2 * small.numel() > table.numel():
        return opset1.constant(table.numpy())
    tall = opset8.gather(opset1.constant(small.numpy()), _indices(column), opset1.constant(np.int32(3)))
    return opset8.gather(tall, _indices(row), opset1.constant(np.int32(2)))


def _indices(index: Tensor) -> Any:
    return opset1.constant(index.numpy().astype(np.int32))


def _channels(row: Tensor) -> Any:
    """One number a channel; one for all where they are the same."""
    values = row.reshape(1, -1, 1, 1).float().numpy()
    return opset1.constant(values[:, :1] if (values == values.flat[0]).all() else values)


def _number(value: float) -> Any:
    return opset1.constant(np.float32(value))
