"""What all edits of a plan are: a place, a kind, and arguments that are written as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from binarize.schemes.part import Part

__all__ = ["Edit", "NewActivation", "free_name"]

Self = TypeVar("Self", bound="Edit")


@dataclass(frozen=True)
class NewActivation:
    """The module that is built in place of an activation."""

    # None: nn.Identity.
    part: Part | None
    channels: int
    channel_dim: int

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes back."""
        part = None if self.part is None else self.part.to_json()
        return {"part": part, "channels": self.channels, "channel_dim": self.channel_dim}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NewActivation:
        """The activation that `to_json` wrote."""
        part = None if data["part"] is None else Part.from_json(data["part"])
        return cls(part, data["channels"], data["channel_dim"])


@dataclass(frozen=True)
class Edit:
    """One resolved change of a model: replayed on reload, never matched again."""

    op: ClassVar[str]
    # Path of the module that it changes, or in whose graph it works; "" is the root.
    container: str

    def to_json(self) -> dict[str, Any]:
        """The edit as JSON values: container, op and args."""
        return {"container": self.container, "op": self.op, "args": self.arguments()}

    def arguments(self) -> dict[str, Any]:
        """What the kind of edit needs beside the container, as JSON values. Flags of later versions are left out if off."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "container"}
        return {key: _plain(value) for key, value in values.items() if key not in _LATER or value}

    @classmethod
    def from_arguments(cls: type[Self], container: str, args: Mapping[str, Any]) -> Self:
        """The edit whose `arguments` are these."""
        return cls(container, **args)

    def parts(self) -> Iterator[Part]:
        """The parts that carrying it out builds beside those of the schemes."""
        return iter(())


def free_name(owner: object, word: str) -> str:
    """A name for a new child of a module that it has no attribute of: the word, or the word and a number."""
    name, number = word, 0
    while hasattr(owner, name):
        number += 1
        name = f"{word}_{number}"
    return name


# Flags that plans of earlier versions know nothing of.
_LATER = frozenset({"summed", "activation_first", "size"})


def _plain(value: object) -> Any:
    to_json = getattr(value, "to_json", None)
    if to_json is not None:
        return to_json()
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
