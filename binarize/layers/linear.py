"""The binary linear layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.kernels.geometry import Geometry, kernel_geometry
from binarize.layers.layer import BinaryLayer

__all__ = ["BinaryLinear"]


class BinaryLinear(BinaryLayer, nn.Linear):  # type: ignore[misc]  # torch types this bias without its None
    """`nn.Linear` on binary weights and, with an input binarizer, binary inputs: (..., I) -> (..., O)."""

    replaces: ClassVar[type[nn.Module] | None] = nn.Linear
    others = frozenset({("timm", "Linear")})
    kind = "linear"

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        return F.linear(a, values)

    def multiply_backward(
        self,
        g: Tensor,
        a: Tensor,
        values: Tensor,
        needs: tuple[bool, bool],
        size: list[int] | None,
        out: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> tuple[Tensor | None, Tensor | None]:
        sum_a, place = out
        flat_g, flat_a = g.reshape(-1, g.shape[-1]), a.reshape(-1, a.shape[-1]).to(g.dtype)
        g_a = g_values = None
        if needs[0] and sum_a is not None:
            g_a = sum_a
            g_a.view(-1, g_a.shape[-1]).addmm_(flat_g, values.to(g.dtype))
        elif needs[0]:
            g_a = g @ values.to(g.dtype)
        if needs[1]:
            g_values = torch.mm(flat_g.t(), flat_a, out=place)
        return g_a, g_values

    def is_batch(self, x: Tensor) -> bool:
        return True

    def geometry_on(self, x: Tensor) -> Geometry | None:
        return kernel_geometry((self.in_features, self.out_features)) if x.dim() else None

    def as_image(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1], 1, 1)

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        return y.reshape(*x.shape[:-1], -1)

    def _per_channel(self, scale: Tensor) -> Tensor:
        return scale.reshape(-1)
