"""Packed layers: frozen ones with one bit a sign, computed by the kernels to the same bits.

The formula is drawn in `binarize.packed.frozen`. A layer is made for inference: nothing here has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.errors import CheckError
from binarize.kernels import operators
from binarize.kernels.bits import lower_of, pack_bits
from binarize.kernels.buffers.origin import Origin
from binarize.kernels.tracing import is_recorded
from binarize.packed.buffers import check_device, check_input, check_numbers, check_there
from binarize.packed.frozen.form import TABLES, Form
from binarize.packed.frozen.layer import MAY_LACK, FrozenLayer
from binarize.packed.fused_conv import FusedConv
from binarize.packed.window import Window

__all__ = ["PackedLayer", "check_stream"]

# All that a packed layer computes with.
_READ = (*TABLES, "bits")

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
        check_there(self, self._needed, MAY_LACK)
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
