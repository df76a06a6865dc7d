"""What the C file will do, as data: values in memory, and steps that read some and write one.

A value has the shape of its tensor, in torch's order: floats [batch of 1][channels][pixels]. Whole numbers and truth
values are floats too. Bits lie [plane][pixel][channels / 32]. Values share a storage where one is a view of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from binarize.kernels.bits import WORD
from binarize.kernels.geometry import Geometry

__all__ = ["Elementwise", "Image", "Program", "Step", "Storage", "Value", "dense_strides", "per_channel"]


@dataclass(eq=False)
class Storage:
    """A place in memory; `offset` in words of four bytes is planned when all steps are known."""

    pool: Literal["floats", "bits", "input", "output", "constant"]
    size: int
    offset: int = 0
    # Of an argument of the C function.
    name: str = ""
    # What a constant holds.
    table: Tensor | None = None


@dataclass(eq=False)
class Value:
    """A tensor, or a view of one: `start` and `strides` are those of torch, strides None where it is dense."""

    shape: tuple[int, ...]
    storage: Storage
    start: int = 0
    strides: tuple[int, ...] | None = None

    @classmethod
    def floats(cls, shape: tuple[int, ...]) -> Value:
        """A new float value."""
        return cls(shape, Storage("floats", math.prod(shape)))

    @classmethod
    def bits(cls, channels: int, pixels: int, planes: int = 1) -> Value:
        """A new value of bits; its shape is that of the floats it stands for."""
        return cls((1, channels, pixels), Storage("bits", planes * -(-channels // WORD) * pixels))

    @classmethod
    def constant(cls, table: Tensor) -> Value:
        """Numbers that the model holds."""
        held = table.detach().cpu().float().contiguous()
        return cls(tuple(held.shape), Storage("constant", held.numel(), table=held))

    def seen_as(self, shape: tuple[int, ...]) -> Value:
        """A dense value's memory in another shape."""
        assert self.strides is None and math.prod(shape) == self.size
        return Value(shape, self.storage, self.start)

    def spread_to(self, shape: tuple[int, ...]) -> Value:
        """The same numbers as a larger tensor reads them, by torch's rules of broadcasting."""
        missing = len(shape) - len(self.shape)
        steps = [0] * missing + [0 if n == 1 else step for n, step in zip(self.shape, self.steps)]
        return self if self.shape == shape else Value(shape, self.storage, self.start, tuple(steps))

    @property
    def steps(self) -> tuple[int, ...]:
        """How far each axis goes in memory."""
        return dense_strides(self.shape) if self.strides is None else self.strides

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def whole(self) -> bool:
        """Whether it is all of its storage, in order."""
        return self.strides is None and self.start == 0 and self.size == self.storage.size

    @property
    def channels(self) -> int:
        """Length of the second axis; of the only one where there is no batch."""
        return self.shape[1] if len(self.shape) > 1 else self.size

    def around(self, axis: int) -> tuple[int, int, int]:
        """(numbers before an axis, its length, numbers behind it)."""
        axis %= max(len(self.shape), 1)
        return math.prod(self.shape[:axis]), (*self.shape, 1)[axis], math.prod(self.shape[axis + 1 :])


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a dense tensor."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Image:
    """A window and the image that it slides over; `spread` puts that many steps between two neighbours of the image."""

    geometry: Geometry
    height: int
    width: int
    out_height: int
    out_width: int
    spread: tuple[int, int] = (1, 1)
    # Rows and columns before the image, negative where some of it is left out; None: the padding of the geometry.
    before: tuple[int, int] | None = None

    @classmethod
    def of(cls, geometry: Geometry, height: int, width: int) -> Image:
        """With as many positions as a convolution has."""
        return cls(geometry, height, width, *geometry.output_size(height, width))

    @property
    def corner(self) -> tuple[int, int]:
        """Rows and columns before the image."""
        return self.geometry.padding[::2] if self.before is None else self.before


@dataclass(frozen=True)
class Elementwise:
    """A function of each number and its channel: what C computes, in torch, on (n, channels)."""

    compute: Callable[[Tensor], Tensor]
    # Whether no channel's function falls anywhere: then it may be taken before a maximum instead of after it.
    rising: bool = False
    # Whether its channels are those of the second axis, behind a batch of 1.
    channels_second: bool = True


@dataclass(eq=False)
class Step:
    """One call of a C function. `name` is the path of the layer that it comes from.

    Arguments are written in the order that the function takes them, by kind: see `calls`.
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
    """All steps in order, from the arguments of the C function to its results."""

    inputs: list[Value]
    results: list[Value]
    steps: list[Step]

    def drop_unread(self) -> None:
        """Leave out the steps whose results nobody reads."""
        wanted = {value.storage for value in self.results}
        kept = []
        for step in reversed(self.steps):
            if step.writes.storage in wanted:
                kept.append(step)
                wanted |= {value.storage for value in step.reads}
        self.steps = kept[::-1]


def per_channel(table: Tensor, x: Tensor) -> Tensor:
    """A table of one number a channel, or of one for all, against (n, channels)."""
    return table.reshape(1, -1).expand_as(x) if table.numel() > 1 else table.reshape(1, 1)
