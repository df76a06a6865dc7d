"""Binary convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from binarize.kernels.geometry import Geometry, kernel_geometry
from binarize.kernels.tracing import as_one_node
from binarize.layers.layer import BinaryLayer
from binarize.layers.product import binary_product

__all__ = [
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryConv3d",
    "BinaryConvTranspose1d",
    "BinaryConvTranspose2d",
    "BinaryConvTranspose3d",
]


class _Window(BinaryLayer):
    """What torch's convolutions say of themselves; the float class beside it in the bases gives the values."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"]
    # [before, after] of the last axis first.
    _reversed_padding_repeated_twice: list[int]

    def is_batch(self, x: Tensor) -> bool:
        return x.dim() == len(self.kernel_size) + 2


class _BinaryConv(_Window):
    """(N, I, ...) with weight (O, I / groups, ...) -> (N, O, ...)."""

    kind = "conv"

    def operand(self, x: Tensor) -> Tensor:
        a = self.binarized_input(x)
        if self._pads_itself():
            return a
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        # Other modes take no value.
        value = self.pad_value if mode == "constant" else None
        return F.pad(a, self._reversed_padding_repeated_twice, mode=mode, value=value)

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        stride, padding, dilation, _, _, groups = self._geometry(a, size)
        function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[values.dim() - 3]
        return function(a, values, None, stride, padding, dilation, groups)

    def geometry_on(self, x: Tensor) -> Geometry | None:
        axes = len(self.kernel_size)
        if type(self).operand is not _BinaryConv.operand or axes > 2 or not self.is_batch(x):
            return None
        if self.padding_mode != "zeros" or self.pad_value not in (-1, 0, 1):
            return None
        first = [1] * (2 - axes)
        sides = [*self._reversed_padding_repeated_twice, 0, 0]
        return kernel_geometry(
            (self.in_channels, self.out_channels),
            (*first, *self.kernel_size),
            (*first, *self.stride),
            (sides[2], sides[3], sides[0], sides[1]),
            (*first, *self.dilation),
            self.groups,
            int(self.pad_value),
        )

    def as_image(self, x: Tensor) -> Tensor:
        return x.unsqueeze(2) if x.dim() == 3 else x

    def from_image(self, y: Tensor, x: Tensor) -> Tensor:
        return y.squeeze(2) if x.dim() == 3 else y

    def _pads_itself(self) -> bool:
        """Whether the convolution pads: with zeros, as much before as after each axis."""
        sides = self._reversed_padding_repeated_twice
        return self.padding_mode == "zeros" and self.pad_value == 0 and sides[::2] == sides[1::2]

    def _geometry(self, a: Tensor, size: list[int] | None) -> tuple[Any, ...]:
        padding = (
            self._reversed_padding_repeated_twice[::-2]
            if self._pads_itself()
            else [0] * len(self.kernel_size)
        )
        return self.stride, padding, self.dilation, False, [0] * len(padding), self.groups

    def _per_channel(self, scale: Tensor) -> Tensor:
        return scale.reshape(-1, *[1] * len(self.kernel_size))


class BinaryConv1d(_BinaryConv, nn.Conv1d):
    """`nn.Conv1d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.Conv1d


class BinaryConv2d(_BinaryConv, nn.Conv2d):
    """`nn.Conv2d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.Conv2d


class BinaryConv3d(_BinaryConv, nn.Conv3d):
    """`nn.Conv3d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.Conv3d


class _BinaryConvTranspose(_Window):
    """(N, I, ...) with weight (I, O / groups, ...) -> (N, O, ...)."""

    kind = "conv_transpose"

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        node = as_one_node(self, x, output_size)
        return self._finish(x, *binary_product(self, x, output_size)) if node is None else node

    def filters(self, weight: Tensor) -> Tensor:
        # A filter is a column of its group.
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)

    def multiply(self, a: Tensor, values: Tensor, size: list[int] | None) -> Tensor:
        stride, padding, dilation, _, extra, groups = self._geometry(a, size)
        function: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[
            values.dim() - 3
        ]
        return function(a, values, None, stride, padding, extra, groups, dilation)

    def _geometry(self, a: Tensor, size: list[int] | None) -> tuple[Any, ...]:
        n = len(self.kernel_size)
        extra = cast(Any, self)._output_padding(
            a, size, self.stride, self.padding, self.kernel_size, n, self.dilation
        )
        return self.stride, self.padding, self.dilation, True, extra, self.groups

    def _per_channel(self, scale: Tensor) -> Tensor:
        # Weight (I, O / groups, ...): a number per index of axis 1 is shared by all groups. A bias has all O.
        groups, out_channels = self.groups, self.out_channels
        if scale.numel() not in (1, out_channels):
            scale = scale.reshape(-1).repeat(groups)
        return scale.reshape(-1, *[1] * len(self.kernel_size))


class BinaryConvTranspose1d(_BinaryConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.ConvTranspose1d


class BinaryConvTranspose2d(_BinaryConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.ConvTranspose2d


class BinaryConvTranspose3d(_BinaryConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` on binary weights and, with an input binarizer, binary inputs."""

    replaces: ClassVar[type[nn.Module] | None] = nn.ConvTranspose3d
