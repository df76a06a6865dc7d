"""Frozen and packed layers: a binary layer as the numbers that inference needs, computed in two ways.

    x ─┬─ front ─ x >= threshold ─ dot, Sa ─ A * dot + C * Sa + ((E * Sw + F * n) + B) ─ norm ─ (+) ─ activation
       └───────────────────────────────────── shortcut ─────────────────────────────────────────┘

The formula, its sums and the order in which it is rounded are those of `kernels.reference`. Everything that was
an affine map of a channel (scales, bias, BatchNorm) is in A, C and B; `front`, `norm`, `shortcut` and `activation`
are what is left in float, and mostly missing. A layer with float inputs has no threshold, and dot = sum of x * w.

    FrozenLayer   keeps one byte a sign and computes in plain torch: exact sums in float32, then the formula
    PackedLayer   keeps one bit a sign, the canonical stream, and computes with the operators of `kernels.operators`

Both give the same bits. They are made for inference: nothing here has a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import CheckError, UsageError
from binarize.kernels import operators, reference
from binarize.kernels.bits import lower_of, pack_bits, stream_bytes
from binarize.kernels.buffers.origin import Origin
from binarize.kernels.tracing import is_recorded
from binarize.layers.gradient_bound import refuse_gradient
from binarize.layers.layer import BinaryLayer, run_parts
from binarize.packed.buffers import check_device, check_input, check_numbers, check_there, table_shapes
from binarize.packed.fused_conv import FusedConv
from binarize.packed.window import Window

__all__ = ["PARTS", "Form", "FrozenLayer", "PackedLayer", "check_stream"]

# The numbers of a layer; the last follows from others.
_TABLES = ("scale", "shift", "window_scale", "threshold", "border")
_MAY_LACK = ("window_scale", "threshold", "border")
# All that a packed layer computes with.
_READ = (*_TABLES, "bits")
# What a layer may hold beside its numbers.
PARTS = ("front", "norm", "shortcut", "activation")


@dataclass(frozen=True)
class Form:
    """The numbers of a layer but its signs. Tensors are float32.

    `outside` is E / A = F / C: what a tap outside the image is off by, in units of the input's radius.
    """

    window: Window
    # (planes, O) and (O,).
    scale: Tensor
    shift: Tensor
    # (O,); None where all filters are symmetric about 0.
    window_scale: Tensor | None = None
    # (planes, C); None compares with 0, or there is nothing to compare.
    threshold: Tensor | None = None
    outside: float = 0.0
    # Of a binary input, +1 or -1 as one of its two values, or 0 as none; of a float input any number.
    pad_value: float = 0
    zero_one: bool = False
    float_input: bool = False

    def __post_init__(self) -> None:
        planes = self.planes
        shapes = table_shapes(self.window, planes)
        for name in _TABLES[:-1]:
            tensor, shape = getattr(self, name), shapes[name]
            if tensor is not None and (tensor.dtype != torch.float32 or tuple(tensor.shape) != shape):
                raise UsageError(
                    f"{name} is {tensor.dtype} {tuple(tensor.shape)}; expected torch.float32 {shape}"
                )
        if not self.float_input and self.pad_value not in ((0, 1) if self.zero_one else (-1, 0, 1)):
            raise UsageError(f"pad_value {self.pad_value} is none of the input's two values, and not 0")
        if planes < 1 or (planes > 1 and (self.window_scale is not None or self.threshold is None)):
            raise UsageError("several planes need thresholds and filters that are symmetric about 0")
        binary = self.threshold is not None or self.zero_one or self.outside or planes > 1
        if self.float_input and binary:
            raise UsageError("a float input has one plane and no threshold")

    @property
    def planes(self) -> int:
        """Bit planes of one input."""
        return self.scale.shape[0] if self.scale.dim() == 2 else 0

    @property
    def border(self) -> Tensor | None:
        """(E, F) as (2, O); None where no tap outside the image differs from those inside."""
        if not self.outside:
            return None
        centre = torch.zeros_like(self.shift) if self.window_scale is None else self.window_scale
        return torch.stack([self.scale[0], centre]) * self.outside


class FrozenLayer(nn.Module):
    """A layer in its frozen form, computed in plain torch. Shapes: those of the layer it was made from."""

    signs: Tensor

    # Without these buffers there is nothing to compute.
    _needed: tuple[str, ...] = ("signs", "scale", "shift")
    scale: Tensor
    shift: Tensor
    window_scale: Tensor | None
    threshold: Tensor | None
    border: Tensor | None
    front: nn.Module | None
    norm: nn.Module | None
    shortcut: nn.Module | None
    activation: nn.Module | None
    activation_first: bool = False

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.window, self.outside, self.pad_value = form.window, form.outside, form.pad_value
        self.zero_one, self.float_input = form.zero_one, form.float_input
        for name in _TABLES[:-1]:
            self.register_buffer(name, getattr(form, name))
        self.register_buffer("border", form.border, persistent=False)
        for name in PARTS:
            self.register_module(name, None)
        self.shortcut_inside = self.activation_inside = True
        self._set_size_attributes()

    @classmethod
    def of(cls, form: Form, lower: Tensor) -> FrozenLayer:
        """A layer of this form; `lower` is True where a sign is -1, filters first."""
        layer = cls(form)
        layer.register_buffer("signs", 1 - 2 * lower.to(torch.int8))
        return layer

    def keep_border(self) -> None:
        """Make the border again where the numbers that it follows from hold something else by now."""
        if not self.outside or is_recorded():
            return
        made_of = self._buffers.get("scale"), self._buffers.get("window_scale")
        known: Origin | None = self.__dict__.get("_border_origin")
        if known is None or not known.still_holds(made_of):
            check_there(self, self._needed, _MAY_LACK)
            self.border = self.form.border
            there = [one for one in made_of if one is not None]
            self.__dict__["_border_origin"] = Origin(made_of, there) if self.scale.is_cpu else None

    @property
    def form(self) -> Form:
        """The numbers of this layer but its signs."""
        tables = (self.scale, self.shift, self.window_scale, self.threshold)
        return Form(self.window, *tables, self.outside, self.pad_value, self.zero_one, self.float_input)

    @property
    def lower(self) -> Tensor:
        """Where a sign is -1, filters first."""
        return self.signs < 0

    def float_signs(self) -> Tensor:
        """+1 and -1 as float32, filters first."""
        return self.signs.float()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was made of the buffers: a copy has others."""
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_made", "_border_origin")
        }

    def take_parts(self, layer: FrozenLayer | BinaryLayer) -> None:
        """Share another layer's float parts, and who runs them."""
        for name in ("norm", "shortcut", "activation"):
            setattr(self, name, getattr(layer, name))
        self.front = getattr(layer, "front", None)
        self.shortcut_inside, self.activation_inside = layer.shortcut_inside, layer.activation_inside
        self.activation_first = layer.activation_first

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not isinstance(x, Tensor):
            raise UsageError(
                f"{type(self).__name__}: the input is of type {type(x).__name__}; expected a tensor"
            )
        self.keep_border()
        read = x if self.front is None else self.front(x)
        y = _laid_out_like(x, self.product(self.window.mirrored(read), output_size)).to(x.dtype)
        y = refuse_gradient(y, read)
        return run_parts(self, x, y)

    def product(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The formula of this module on an input with its own padding around it, in float32.

        Raises: UsageError, where a buffer, or the input, is none that it can compute with.
        """
        if not is_recorded():
            check_there(self, self._needed, _MAY_LACK)
            check_device(self, x)
            check_numbers(self, self.window)
            check_input(x, self.window)
        signs, linear = self.float_signs(), self.window.kind == "linear"
        flat = x.reshape(-1, x.shape[-1]) if linear else x

        def summed(values: Tensor, weight: Tensor, pad_value: float) -> Tensor:
            y = self.window.slide(values, weight, pad_value, output_size)
            # A sum of integers is one: rounding absorbs fast algorithms.
            return y if self.float_input else y.round()

        planes = [flat.float()] if self.float_input else self.planes_of(flat)
        dots = [summed(plane, signs, self.pad_value) for plane in planes]
        window = border = None
        if self.window_scale is not None:
            sums = summed(planes[0], self.window.group_ones(signs), self.pad_value)
            window = self.window_scale, _column(sums)
        if self.border is not None:
            inside, padded = torch.ones_like(planes[0][:1]), abs(self.pad_value)
            counts = [_column(summed(inside, weight, padded)) for weight in (signs, signs.abs())]
            border = self.border, counts[0], counts[1]
        columns = [_column(dot) for dot in dots]
        y = reference.affine(columns, self.scale, self.shift, window=window, border=border)
        return y.reshape(*x.shape[:-1], self.window.out_channels) if linear else y.reshape(dots[0].shape)

    def planes_of(self, x: Tensor) -> list[Tensor]:
        """The input's bit planes as float32: +1 / -1, or 1 / 0."""
        shape = (-1,) if self.window.kind == "linear" else (1, -1, *[1] * len(self.window.kernel))
        rows: list[Any] = [0] if self.threshold is None else [row.view(shape) for row in self.threshold]
        masks = [x < row for row in rows]
        return [(~mask).float() if self.zero_one else 1 - 2 * mask.float() for mask in masks]

    def packed_bytes(self) -> int:
        """What this layer takes at one bit a sign and four bytes a number, its float parts apart."""
        tables = (self.scale, self.shift, self.window_scale)
        floats = sum(table.numel() for table in tables if table is not None)
        if self.threshold is not None:  # one number where all channels have the same
            floats += len(self.threshold) if _uniform(self.threshold) else self.threshold.numel()
        return stream_bytes(self.window.weight_shape) + 4 * floats

    def _set_size_attributes(self) -> None:
        """The attributes by which models ask their layers for sizes."""
        w = self.window
        if w.kind == "linear":
            self.in_features, self.out_features = w.in_channels, w.out_channels
            return
        self.in_channels, self.out_channels, self.groups = w.in_channels, w.out_channels, w.groups
        self.kernel_size, self.stride, self.dilation = w.kernel, w.stride, w.dilation

    def extra_repr(self) -> str:
        w = self.window
        words = [
            w.kind if w.kind == "linear" else f"{w.kind}{len(w.kernel)}d",
            f"{w.in_channels}, {w.out_channels}",
        ]
        words += [f"{name}={value}" for name, value in w.to_json().items() if name not in _SAID]
        if self.float_input:
            words.append("float inputs")
        if self.scale.shape[0] > 1:
            words.append(f"planes={self.scale.shape[0]}")
        return ", ".join(words)


# Said first, in other words.
_SAID = ("kind", "in_channels", "out_channels")
_NATIVE_TYPES = (torch.float32, torch.float16, torch.bfloat16)
# MAX_PLANES of kernels.h.
_NATIVE_PLANES = 8


class PackedLayer(FrozenLayer):
    """A frozen layer with its signs as the canonical bit stream, computed by the kernels where they know its kind."""

    _needed = ("bits", "scale", "shift")
    bits: Tensor

    @classmethod
    def of(cls, form: Form, lower: Tensor) -> PackedLayer:
        return cls.from_bits(form, pack_bits(lower))

    @classmethod
    def from_bits(cls, form: Form, bits: Tensor) -> PackedLayer:
        """A layer of this form on a canonical stream. Raises: CheckError, where the stream is none of this size."""
        check_stream(bits, form.window)
        layer = cls(form)
        layer.register_buffer("bits", bits)
        return layer

    @property
    def lower(self) -> Tensor:
        return lower_of(self.bits, self.window.weight_shape)

    def float_signs(self) -> Tensor:
        return 1 - 2 * self.lower.float()

    def product(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.float_input or not self.window.native or x.dtype not in _NATIVE_TYPES:
            return super().product(x, output_size)
        recorded = is_recorded()
        linear, line = self.window.kind == "linear", len(self.window.kernel) == 1
        plain = type(x) is Tensor and x.layout == torch.strided
        if not recorded and not (plain and x.dim() == (2 if linear else 3 if line else 4)):
            check_input(x, self.window)
        call = self._direct(x) if type(x) is Tensor and not recorded else None
        if self.scale.shape[0] > _NATIVE_PLANES:
            return super().product(x, output_size)
        image = x.unsqueeze(2) if line else x
        if call is not None:
            # Beside a small product the way through an operator is long.
            if linear:
                y: Tensor = call.forward(x.reshape(-1, x.shape[-1]))
                return y.reshape(*x.shape[:-1], self.window.out_channels)
            y = call.forward(image)
            return y.squeeze(2) if line else y
        options = {
            "threshold": _single(self.threshold),
            "zero_one": self.zero_one,
            "window_scale": self.window_scale,
            "border": self.border,
        }
        if linear:
            return operators.linear(x, self.bits, _single(self.scale), self.shift, **options)
        sizes = operators.sizes_of(self.window.geometry(x, int(self.pad_value)))
        y = torch.ops.binarize.conv(image, self.bits, sizes, _single(self.scale), self.shift, **options)
        return y.squeeze(2) if line else y

    def _direct(self, x: Tensor) -> FusedConv:
        """This layer as one call of a kernel, made again when one of its buffers is another or has moved."""
        side = x.shape[2:] if self.window.padding_mode == "same" else None
        made: tuple[object, Origin, FusedConv] | None = self.__dict__.get("_made")
        if made is not None and made[0] == side and made[1].still_holds(map(self._buffers.get, _READ)):
            return made[2]
        check_there(self, self._needed, _MAY_LACK)
        check_device(self, x)
        check_numbers(self, self.window)
        call = FusedConv(self, x)
        self.__dict__["_made"] = side, Origin(map(self._buffers.get, _READ)), call
        return call


def check_stream(bits: Tensor, window: Window) -> None:
    """Raises: CheckError, where bits are no canonical stream of this window's weight."""
    out_channels, n = window.out_channels, window.filter_size
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (out_channels, -(-n // 8)):
        raise CheckError(
            f"bits are {bits.dtype} {tuple(bits.shape)}; expected torch.uint8 {(out_channels, -(-n // 8))}"
        )
    if n % 8 and bool((bits[:, -1] >> (n % 8)).any()):
        raise CheckError(f"bits: one that fills up a filter of {n} weights is set")


def _single(table: Tensor | None) -> Any:
    """The operators' form: one row is a vector."""
    return table[0] if table is not None and table.shape[0] == 1 else table


def _column(y: Tensor) -> Tensor:
    """(N, O, ...) -> (N, O, positions, 1)."""
    return y.reshape(*y.shape[:2], math.prod(y.shape[2:]), 1)


def _laid_out_like(x: Tensor, y: Tensor) -> Tensor:
    """y with channels last in memory where x has them so, else in the order of its axes.

    Later layers may differ in the last bit with the order in memory, so it is the same for both ways of computing.
    Viewing what is contiguous anew gives axes of length 1 the strides that they have everywhere else.
    """
    images = x.dim() == y.dim() == 4
    if images and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        last = y.permute(0, 2, 3, 1).contiguous()
        return last.view(-1).view(last.shape).permute(0, 3, 1, 2)
    y = y.contiguous()
    return y.view(-1).view(y.shape)


def _uniform(table: Tensor) -> bool:
    """Whether each row is one number repeated."""
    return bool((table == table[:, :1]).all())
