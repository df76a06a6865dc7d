"""Binary counterparts of layers of timm and transformers that compute in their own way.

    StdConv2d         standardizes each filter before use (Qiao et al., 2019, https://arxiv.org/abs/1903.10520)
    ScaledStdConv2d   and scales it by a learned gain (Brock et al., 2021, https://arxiv.org/abs/2101.08692)
    ...Same           pad as TensorFlow does, by the size of the input
    Conv1D            GPT-2's linear layer, whose weight lies as (in, out)

The own computation stays: the binarizer sees the standardized weight, and the padding is that of the float layer, put
on after the input was binarized. Classes are known by name, so that neither library need be imported.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F

from binarize.layers.conv import BinaryConv2d
from binarize.layers.linear import BinaryLinear
from binarize.plain_forward import Plain

__all__ = ["BinaryConv1D", "BinaryConv2dSame", "BinaryStdConv2d", "BinaryStdConv2dSame"]


class BinaryStdConv2d(BinaryConv2d):
    """`timm.layers.StdConv2d`, `ScaledStdConv2d`: weights standardized per filter, then binarized."""

    replaces: ClassVar[type[nn.Module] | None] = None
    others = frozenset({("timm", "StdConv2d"), ("timm", "ScaledStdConv2d")})
    eps: float
    # Of the scaled classes alone.
    gain: Tensor
    own_scale: float

    def real_weight(self) -> Tensor:
        weight = super().real_weight()
        gain = (self.gain * self.own_scale).view(-1) if hasattr(self, "gain") else None
        flat = weight.reshape(1, weight.shape[0], -1)
        # Statistics of each filter, as BatchNorm takes them in training mode; nothing is tracked.
        return F.batch_norm(
            flat, None, None, weight=gain, training=True, momentum=0.0, eps=self.eps
        ).reshape_as(weight)


class BinaryConv2dSame(BinaryConv2d):
    """`timm.layers.Conv2dSame`: as much padding as keeps ceil(size / stride) positions, more after than before."""

    others = frozenset({("timm", "Conv2dSame")})
    kind = "conv"

    @classmethod
    def fits(cls, plain: Plain | None) -> bool:
        return plain is not None and plain.sides is None

    @property
    def pads_by_size(self) -> bool:
        return bool(getattr(self, "same_pad", True))

    def operand(self, x: Tensor) -> Tensor:
        a = self.binarized_input(x)
        if not self.pads_by_size:
            return a
        sides: list[int] = []
        for axis in (1, 0):
            size, stride = x.shape[2 + axis], self.stride[axis]
            reach = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
            sides += [total // 2, total - total // 2]
        return F.pad(a, sides, value=self.pad_value)


class BinaryStdConv2dSame(BinaryStdConv2d, BinaryConv2dSame):
    """`timm.layers.StdConv2dSame`, `ScaledStdConv2dSame`: both of the above."""

    replaces: ClassVar[type[nn.Module] | None] = None
    others = frozenset({("timm", "StdConv2dSame"), ("timm", "ScaledStdConv2dSame")})


class BinaryConv1D(BinaryLinear):
    """`transformers.pytorch_utils.Conv1D`: a linear layer on (..., I), its weight kept as (I, O)."""

    replaces: ClassVar[type[nn.Module] | None] = None
    others = frozenset({("transformers", "Conv1D")})

    @classmethod
    def channels_of(cls, layer: nn.Module) -> tuple[int, int]:
        rows, columns = cast(Tensor, layer.weight).shape
        return rows, columns

    @property
    def in_features(self) -> int:  # type: ignore[override]
        """Channels of the input."""
        return self.weight.shape[0]

    @property
    def out_features(self) -> int:  # type: ignore[override]
        """Channels of the output."""
        return self.weight.shape[1]

    def real_weight(self) -> Tensor:
        return super().real_weight().t()
