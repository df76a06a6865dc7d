"""The shape of a binary convolution, checked once and then passed around."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from binarize.errors import UsageError

__all__ = ["Geometry", "kernel_geometry"]


@dataclass(frozen=True)
class Geometry:
    """A 2d convolution's sizes. A 1d one has height 1; a linear layer is a 1x1 convolution.

    `padding` is (top, bottom, left, right). `pad_value` is what stands outside the image: 0 (no member of the
    binary set, so the border is corrected for it exactly), 1 or -1.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 0
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        sizes = (self.in_channels, self.out_channels, self.groups, *self.kernel, *self.stride, *self.dilation)
        if min(sizes) < 1 or min(self.padding) < 0:
            raise UsageError(f"{self}: sizes must be positive and padding not negative")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise UsageError(
                f"{self.in_channels} input and {self.out_channels} output channels do not divide into "
                f"{self.groups} groups"
            )
        if self.pad_value not in (-1, 0, 1):
            raise UsageError(f"pad_value {self.pad_value}: a binary convolution pads with -1, 0 or 1")
        identity = (sizes, self.padding, self.pad_value)
        object.__setattr__(self, "_hash", hash(identity))  # it is a key in every call of a kernel

    def __hash__(self) -> int:
        return self._hash

    @property
    def group_in(self) -> int:
        """Input channels of one filter."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Filters of one group."""
        return self.out_channels // self.groups

    @property
    def taps(self) -> int:
        """Positions of the kernel window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def filter_size(self) -> int:
        """Weights of one filter: the K of `dot = K - 2 * popcount`."""
        return self.group_in * self.taps

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the float weight that the bits stand for."""
        return (self.out_channels, self.group_in, *self.kernel)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result.

        Raises: UsageError if the window does not fit into the padded image.
        """
        top, bottom, left, right = self.padding
        size = []
        for length, pad, kernel, stride, dilation in zip(
            (height, width), (top + bottom, left + right), self.kernel, self.stride, self.dilation
        ):
            span = dilation * (kernel - 1) + 1
            if length + pad < span:
                raise UsageError(
                    f"an image of {height}x{width} padded by {self.padding} is smaller than the window of "
                    f"{self.kernel} with dilation {self.dilation}"
                )
            size.append((length + pad - span) // stride + 1)
        return size[0], size[1]


@lru_cache(maxsize=4096)
def kernel_geometry(
    channels: tuple[int, int],
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    pad_value: int = 0,
) -> Geometry:
    """The same `Geometry` for the same numbers; `channels` are those in and out."""
    return Geometry(*channels, kernel, stride, padding, dilation, groups, pad_value)
