"""The shape of a frozen layer: which inputs each filter meets. No values, JSON-able, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.errors import UsageError
from binarize.kernels.geometry import Geometry
from binarize.layers.layer import BinaryLayer, Kind

__all__ = ["NO_WINDOW", "Window"]

PaddingMode = Literal["zeros", "reflect", "replicate", "circular", "same"]
_PER_AXIS = ("kernel", "stride", "dilation")
# What is said of a class that has none.
NO_WINDOW = (
    "has a product of its own; where it is that of a convolution or linear layer, its class says so by `kind`"
)
# Sizes of images and their sums stay countable in 64 bits.
_LARGEST = 1 << 24


@dataclass(frozen=True)
class Window:
    """A convolution of one to three spatial axes, a transposed one, or a linear layer.

    Weights are filters first, (out, in / groups, *kernel), whatever the layer's own order is.
    """

    kind: Kind
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    # Convolutions: before and after each axis, the last axis first, as F.pad takes them. Transposed: one an axis.
    padding: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    # "same": as much as keeps ceil(size / stride) positions, by the size of the input.
    padding_mode: PaddingMode = "zeros"

    def __post_init__(self) -> None:
        axes = len(self.kernel)
        per_axis = [getattr(self, name) for name in _PER_AXIS]
        counts = (self.in_channels, self.out_channels, self.groups, *(n for one in per_axis for n in one))
        sides = {"conv": 2 * axes, "conv_transpose": axes, "linear": 0}.get(self.kind, -1)
        if (
            (axes == 0) != (self.kind == "linear")
            or axes > 3
            or any(len(one) != axes for one in per_axis)
            or len(self.padding) != sides
            or len(self.output_padding) != (axes if self.kind == "conv_transpose" else 0)
            or self.padding_mode not in get_args(PaddingMode)
            or any(type(n) is not int for n in (*counts, *self.padding, *self.output_padding))
            or min(counts) < 1
            or min((*self.padding, *self.output_padding, 0)) < 0
            or max((*counts[2:], *self.padding, *self.output_padding)) > _LARGEST
            or self.in_channels % self.groups
            or self.out_channels % self.groups
        ):
            raise UsageError(f"{self}: these numbers make no {self.kind} layer")

    @classmethod
    def of(cls, layer: BinaryLayer) -> Window:
        """The window of a binary layer. Raises: UsageError, where its class does not say that it has one."""
        kind = layer.product_kind()
        conv: Any = layer
        if kind is None:
            raise UsageError(f"{type(layer).__name__} {NO_WINDOW}")
        if kind == "linear":
            return cls(kind, conv.in_features, conv.out_features)
        transposed = kind == "conv_transpose"
        sides = conv.padding if transposed else conv._reversed_padding_repeated_twice
        return cls(
            kind,
            conv.in_channels,
            conv.out_channels,
            tuple(conv.kernel_size),
            tuple(conv.stride),
            tuple(conv.dilation),
            tuple(int(side) for side in sides),
            tuple(conv.output_padding) if transposed else (),
            conv.groups,
            "same" if layer.pads_by_size else conv.padding_mode,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults; steps of 1 are left out."""
        ones = (1,) * len(self.kernel)
        kept = {"stride": ones, "dilation": ones, "padding": (0,) * len(self.padding), "groups": 1}
        kept |= {"output_padding": (0,) * len(self.output_padding), "kernel": (), "padding_mode": "zeros"}
        return {key: value for key, value in asdict(self).items() if key not in kept or value != kept[key]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Window:
        """The window that `to_json` wrote. Raises: UsageError, where these numbers make none."""
        if not isinstance(data, Mapping) or data.keys() - {field.name for field in fields(cls)}:
            raise UsageError(f"{data!r} describes no layer")
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        kind, kernel = given.get("kind"), given.get("kernel", ())
        if kind not in get_args(Kind) or not isinstance(kernel, tuple):
            raise UsageError(f"{data!r} describes no layer")
        ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
        transposed = kind == "conv_transpose"
        defaults = {"stride": ones, "dilation": ones, "padding": zeros if transposed else zeros * 2}
        defaults["output_padding"] = zeros if transposed else ()
        try:
            return cls(**{**defaults, **given})
        except TypeError as error:
            raise UsageError(f"{data!r} describes no layer: {error}") from error

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the signs, filters first."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def filter_size(self) -> int:
        """Weights of one filter."""
        return math.prod(self.weight_shape[1:])

    @property
    def pads(self) -> bool:
        """Whether a filter may stand over taps that lie outside the image, and not on copies of its inside."""
        if self.kind == "conv_transpose":
            return True  # it misses taps wherever its steps are longer than 1, and at the borders
        return self.padding_mode == "same" or (self.padding_mode == "zeros" and any(self.padding))

    @property
    def native(self) -> bool:
        """Whether the kernels know layers of this kind."""
        return self.kind == "linear" or (self.kind == "conv" and len(self.kernel) <= 2)

    def filters_first(self, weight: Tensor) -> Tensor:
        """A layer's weight in the order of `weight_shape`."""
        if self.kind != "conv_transpose":
            return weight
        apart = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
        return apart.reshape(self.weight_shape)

    def layer_order(self, weight: Tensor) -> Tensor:
        """Filters back in the order of the layer's weight. Shapes: (O, C / groups, *kernel) -> the layer's."""
        if self.kind != "conv_transpose":
            return weight
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def sides(self, x: Tensor) -> list[int]:
        """Padding before and after each axis of this input, the last axis first."""
        if self.padding_mode != "same":
            return list(self.padding)
        sides: list[int] = []
        for axis in reversed(range(len(self.kernel))):
            size, stride = x.shape[2 + axis], self.stride[axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            sides += [total // 2, total - total // 2]
        return sides

    def mirrored(self, x: Tensor) -> Tensor:
        """x with the padding that repeats its own values; padding with a constant comes later.

        Shapes: (N, C, ...) -> (N, C, larger).
        """
        if self.padding_mode in ("zeros", "same") or self.kind != "conv":
            return x
        return F.pad(x, self.sides(x), mode=self.padding_mode)

    def geometry(self, x: Tensor, pad_value: int) -> Geometry:
        """What the kernels are told about this layer on an input with `mirrored` padding."""
        if self.kind == "linear":
            return Geometry(self.in_channels, self.out_channels)
        constant = self.padding_mode in ("zeros", "same")
        sides = self.sides(x) if constant else [0] * (2 * len(self.kernel))
        left, right, top, bottom = sides if len(self.kernel) == 2 else [*sides, 0, 0]
        line = (1,) * (2 - len(self.kernel))
        return Geometry(
            self.in_channels,
            self.out_channels,
            _pair(*line, *self.kernel),
            _pair(*line, *self.stride),
            (top, bottom, left, right),
            _pair(*line, *self.dilation),
            self.groups,
            pad_value,
        )

    def slide(
        self, x: Tensor, weight: Tensor, pad_value: float = 0.0, size: list[int] | None = None
    ) -> Tensor:
        """The product in float: x with `mirrored` padding, filters first; `size` is a transposed layer's output.

        Shapes: x (N, C, ...) or (..., C), weight (O, C / groups, *kernel) -> (N, O, ...) or (..., O).
        """
        if self.kind == "linear":
            return F.linear(x, weight)
        axes = len(self.kernel)
        if self.kind == "conv":
            if self.padding_mode in ("zeros", "same"):
                x = F.pad(x, self.sides(x), value=pad_value)
            convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
            y: Tensor = convolve(x, weight, None, self.stride, 0, self.dilation, self.groups)
            return y
        extra = self._output_padding(x, size)
        spread: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        raised: Tensor = spread(
            x, self.layer_order(weight), None, self.stride, self.padding, extra, self.groups, self.dilation
        )
        return raised

    def _output_padding(self, x: Tensor, size: list[int] | None) -> list[int]:
        """What is added at one end to reach the size asked for."""
        if size is None:
            return list(self.output_padding)
        wanted = list(size)[-len(self.kernel) :]
        found = []
        for axis, target in enumerate(wanted):
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            least = (x.shape[2 + axis] - 1) * self.stride[axis] - 2 * self.padding[axis] + reach
            most = least + self.stride[axis] - 1
            if not least <= target <= most:
                raise UsageError(f"output size {wanted}: axis {axis} may be {least} to {most}")
            found.append(target - least)
        return found

    def group_ones(self, like: Tensor) -> Tensor:
        """A filter of ones a group: its product is the sum over the window. Shapes: -> (groups, C / groups, *kernel)."""
        return torch.ones(self.groups, *self.weight_shape[1:], dtype=like.dtype, device=like.device)


def _pair(high: int, wide: int) -> tuple[int, int]:
    return high, wide
