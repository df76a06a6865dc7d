"""What a pickle says, as records that do nothing.

Lists, tuples, numbers, texts, bytes and None stand for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Made", "Members", "Named", "Pairs", "Stored"]


@dataclass(eq=False, slots=True)
class Named:
    """A global that the pickle names."""

    name: str


@dataclass(eq=False, slots=True)
class Made:
    """What the pickle would get from calling or instantiating `maker`.

    `items` are the keys and values, in turn, and `values` the members that it puts in afterwards.
    """

    maker: object
    args: tuple[object, ...]
    called: bool
    state: object = None
    items: list[object] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.maker.name if isinstance(self.maker, Named) else type(self.maker).__name__


@dataclass(eq=False, slots=True)
class Stored:
    """A reference to data outside the pickle: a tensor's storage."""

    reference: object


class Pairs(list[Any]):
    """A dictionary: its keys and values in turn."""

    __slots__ = ()


class Members(list[Any]):
    """A set, or a frozen one."""

    __slots__ = ("frozen",)

    def __init__(self, items: list[Any], *, frozen: bool) -> None:
        super().__init__(items)
        self.frozen = frozen
