"""A frozen layer: one byte a sign, computed in plain torch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.kernels import reference
from binarize.kernels.bits import stream_bytes
from binarize.kernels.buffers.origin import Origin
from binarize.kernels.tracing import is_recorded
from binarize.layers.gradient_bound import refuse_gradient
from binarize.layers.layer import BinaryLayer, run_parts
from binarize.packed.buffers import check_device, check_input, check_numbers, check_there
from binarize.packed.frozen.form import TABLES, Form

__all__ = ["MAY_LACK", "PARTS", "FrozenLayer"]

# Tables that a layer can be without.
MAY_LACK = ("window_scale", "threshold", "border")
# What a layer may hold beside its numbers.
PARTS = ("front", "norm", "shortcut", "activation")


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
        for name in TABLES[:-1]:
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
            check_there(self, self._needed, MAY_LACK)
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
            check_there(self, self._needed, MAY_LACK)
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
