"""The numbers of a frozen layer but its signs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.packed.buffers import table_shapes
from binarize.packed.window import Window

__all__ = ["TABLES", "Form"]

# The numbers of a layer; the last follows from others.
TABLES = ("scale", "shift", "window_scale", "threshold", "border")


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
        for name in TABLES[:-1]:
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
