"""The shape of a binary convolution, checked once and then passed around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from binarize.errors import UsageError

__all__ = ["Geometry", "check_margin", "geometry_of", "kernel_geometry"]

# Sizes are 32 bit numbers to the kernels.
_LARGEST = (1 << 31) - 1
# Bytes that padding beyond the kernel may take of one image, at four a number.
_MOST_PADDING = 1 << 30


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
        if max(*sizes, *self.padding) > _LARGEST:
            raise UsageError(f"{self}: sizes and padding must be below 2^31")
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

        Raises: UsageError if the image is empty, the window does not fit into the padded image, or nearly all of that
        would be padding and take more than 1 GiB.
        """
        if height < 1 or width < 1:
            raise UsageError(f"an image of {height}x{width} has no pixels")
        check_margin((height, width), self.kernel, self.padding, max(self.in_channels, self.out_channels))
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


def check_margin(image: Any, kernel: Sequence[int], padding: Sequence[int], channels: int) -> None:
    """Refuses padding that no kernel of this size needs, where it takes much memory; kernels hold a weight a tap.

    `padding` is (top, bottom, left, right). Raises: UsageError, where it is more than 1 GiB of an image.
    """
    padded, needed = 1, 1
    if all(pad < kernel[i // 2] for i, pad in enumerate(padding)):
        return
    for i, length in enumerate(image):
        sides = padding[2 * i : 2 * i + 2]
        padded *= length + sum(sides)
        needed *= length + sum(min(pad, kernel[i]) for pad in sides)
    if 4 * channels * (padded - needed) > _MOST_PADDING:
        raise UsageError(
            f"padding {tuple(padding)} of an image of {image[0]}x{image[1]} for a kernel of {tuple(kernel)} takes "
            f"{4 * channels * (padded - needed) / (1 << 30):.1f} GiB; at most 1 GiB may lie beyond the kernel's reach"
        )


def geometry_of(bits: Any, sizes: Sequence[int]) -> Geometry:
    """The geometry that `sizes`, see `ops.sizes_of`, and the number of filters of a canonical stream stand for.

    Raises: UsageError, where there is none.
    """
    if bits.dim() != 2 or len(sizes) != 13:
        raise UsageError(
            f"packed bits are {tuple(bits.shape)} with {len(sizes)} sizes; expected (O, bytes) and 13 sizes"
        )
    return _geometry(int(bits.shape[0]), tuple(sizes))  # a weight's size is no symbol


@lru_cache(maxsize=4096)
def _geometry(out_channels: int, sizes: tuple[int, ...]) -> Geometry:
    channels, kh, kw, sh, sw, top, bottom, left, right, dh, dw, groups, pad_value = sizes
    padding = (top, bottom, left, right)
    return Geometry(channels, out_channels, (kh, kw), (sh, sw), padding, (dh, dw), groups, pad_value)


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
