"""What the C file will do, as data: values in memory, and steps that read some and write one.

A value has the shape of its tensor without the batch axis, in torch's order: floats [channels][pixels]. Bits lie
[plane][pixel][channels / 32]. Values share a storage where one is the other seen in another shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels.bits import WORD
from binarize.kernels.geometry import Geometry

__all__ = ["Elementwise", "Image", "Program", "Step", "Storage", "Value", "per_channel", "refuse"]


@dataclass(eq=False)
class Storage:
    """A place in memory; `offset` in elements of its own pool is planned when all steps are known."""

    pool: Literal["floats", "bits", "input", "output"]
    size: int
    offset: int = 0


@dataclass(eq=False)
class Value:
    """A tensor of the batch's only sample."""

    shape: tuple[int, ...]
    storage: Storage

    @classmethod
    def floats(cls, shape: tuple[int, ...]) -> Value:
        """A new float value."""
        return cls(shape, Storage("floats", math.prod(shape)))

    @classmethod
    def bits(cls, channels: int, pixels: tuple[int, ...], planes: int = 1) -> Value:
        """A new value of bits; its shape is that of the floats it stands for."""
        words = planes * -(-channels // WORD) * math.prod(pixels)
        return cls((channels, *pixels), Storage("bits", words))

    def seen_as(self, shape: tuple[int, ...]) -> Value:
        """The same memory in another shape."""
        assert math.prod(shape) == math.prod(self.shape)
        return Value(shape, self.storage)

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Length of the first axis."""
        return self.shape[0] if self.shape else 1

    @property
    def pixels(self) -> int:
        """Length of the other axes together."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True)
class Image:
    """A window and the image that it slides over."""

    geometry: Geometry
    height: int
    width: int
    out_height: int
    out_width: int

    @classmethod
    def of(cls, geometry: Geometry, height: int, width: int) -> Image:
        """With as many positions as a convolution has."""
        return cls(geometry, height, width, *geometry.output_size(height, width))


@dataclass(frozen=True)
class Elementwise:
    """A function of each number and its channel: what C computes, in torch, on (n, channels)."""

    compute: Callable[[Tensor], Tensor]
    # Whether no channel's function falls anywhere: then it may be taken before a maximum instead of after it.
    rising: bool = False


@dataclass(eq=False)
class Step:
    """One call of a C function. `name` is the path of the layer that it comes from.

    Arguments are written in the order that the function takes them, by kind: see `c_text`.
    """

    function: str
    reads: list[Value]
    writes: Value
    name: str
    image: Image | None = None
    # Tables and numbers by the names that the text generator of `function` knows.
    tables: dict[str, Tensor | None] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    elementwise: Elementwise | None = None
    # Memory that only this step needs.
    scratch: list[Storage] = field(default_factory=list)


@dataclass
class Program:
    """All steps in order; `result` is what the model yields."""

    input: Value
    result: Value
    steps: list[Step]


def refuse(name: str, reason: str) -> UsageError:
    """What to raise for a layer that C cannot express."""
    return UsageError(f"export c: {name}: {reason}")


def per_channel(table: Tensor, x: Tensor) -> Tensor:
    """A table of one number a channel, or of one for all, against (n, channels)."""
    return table.reshape(1, -1).expand_as(x) if table.numel() > 1 else table.reshape(1, 1)
