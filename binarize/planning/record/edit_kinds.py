"""The edits of a plan, one class a kind: complete when made, written as JSON, and read back to be replayed.

Modules are named by their path from the root, nodes by their name in the traced graph of the edit's container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from binarize.errors import SourceError, did_you_mean
from binarize.planning.record.edit import Edit, NewActivation
from binarize.planning.record.origin import Origin
from binarize.schemes.part import Part

if TYPE_CHECKING:
    from binarize.layers.shortcuts import ShortcutSpec

__all__ = [
    "EDIT_KINDS",
    "AddShortcut",
    "AddValue",
    "Attach",
    "Explicit",
    "GraphEdit",
    "MoveActivation",
    "Open",
    "Precede",
    "Replace",
    "ReplaceActivation",
    "ReplaceOperand",
    "Swap",
    "edit_from_json",
    "named_sizes",
]

Self = TypeVar("Self", bound="Edit")


@dataclass(frozen=True)
class Explicit(Edit):
    """Let an attention run its projections as layers of their own."""

    op = "explicit"


@dataclass(frozen=True)
class Open(Edit):
    """Trace the container: its own forward, and those of the children that are `opened`."""

    op = "open"
    opened: tuple[str, ...]
    # Arguments of the forward that are no tensors.
    concrete: Mapping[str, bool | int | float | str | None] = field(default_factory=dict, hash=False)

    @classmethod
    def from_arguments(cls, container: str, args: Mapping[str, Any]) -> Open:
        """The edit whose `arguments` are these."""
        return cls(container, tuple(args["opened"]), dict(args["concrete"]))


@dataclass(frozen=True)
class Swap(Edit):
    """Put a binary layer with its parts in place of the float layer at `container`."""

    op = "swap"
    scheme: str
    # Classes of norms (see passes/norm.py): behind the product, and in front of the sign.
    norm: str | None = None
    input_norm: str | None = None
    threshold: Origin | None = None
    # Whether the input binarizer holds the threshold itself (RSign).
    own_threshold: bool = False
    shortcut: ShortcutSpec | None = None
    # Whether the layer runs shortcut and activation itself, and the activation first.
    shortcut_inside: bool = False
    activation: NewActivation | None = None
    activation_inside: bool = False
    channel_dim: int = 1
    activation_first: bool = False
    # Positions of the output, where the scheme's scale has numbers for them.
    size: tuple[int, ...] = ()

    @classmethod
    def from_arguments(cls, container: str, args: Mapping[str, Any]) -> Swap:
        """The edit whose `arguments` are these."""
        # Imports torch, which reports of a plan do without.
        from binarize.layers.shortcuts import ShortcutSpec

        kinds = {"threshold": Origin, "shortcut": ShortcutSpec, "activation": NewActivation}
        made = {
            key: kind.from_json(args[key])  # type: ignore[attr-defined]
            for key, kind in kinds.items()
            if args[key] is not None
        }
        return cls(container, **{**args, **made, "size": tuple(args.get("size", ()))})

    def parts(self) -> Iterator[Part]:
        """The part of its activation."""
        if self.activation is not None and self.activation.part is not None:
            yield self.activation.part


def named_sizes(size: tuple[int, ...]) -> dict[str, int]:
    """The positions along each axis by the names that parts take them by: {"height": 8, "width": 8}."""
    return dict(zip(("width", "height", "depth"), reversed(size)))


@dataclass(frozen=True)
class _NewModule(Edit):
    """A new activation at the path `container`."""

    new: NewActivation

    def arguments(self) -> dict[str, Any]:
        """The activation as JSON values."""
        return self.new.to_json()

    @classmethod
    def from_arguments(cls: type[Self], container: str, args: Mapping[str, Any]) -> Self:
        """The edit whose `arguments` are these."""
        return cls(container, NewActivation.from_json(args))  # type: ignore[call-arg]

    def parts(self) -> Iterator[Part]:
        """The part of the activation."""
        if self.new.part is not None:
            yield self.new.part


@dataclass(frozen=True)
class Replace(_NewModule):
    """Put a new activation in place of the activation module at `container`."""

    op = "replace"


@dataclass(frozen=True)
class Attach(_NewModule):
    """Hang a new activation at the path `container`, where nothing stands."""

    op = "attach"


@dataclass(frozen=True)
class AddShortcut(Edit):
    """Add the shortcut of a layer, on the layer's own input, behind a node."""

    op = "add_shortcut"
    layer: str
    after: str
    # The call of the layer.
    source_of: str
    # Whether the layer's activation follows the add.
    activation: bool = False


@dataclass(frozen=True)
class AddValue(Edit):
    """Add the value of another node behind a node."""

    op = "add_value"
    layer: str
    after: str
    value: str
    activation: bool = False
    # Whether `value` means what its readers get by then, earlier edits included. Older plans take the node itself.
    summed: bool = False


@dataclass(frozen=True)
class ReplaceOperand(Edit):
    """Let an add read `new` where it read `old`."""

    op = "replace_operand"
    node: str
    old: str
    new: str
    # As of `AddValue`, for `old` and `new`.
    summed: bool = False


@dataclass(frozen=True)
class ReplaceActivation(Edit):
    """Replace one call of an activation by a call of the module at a path; None passes its input on."""

    op = "replace_activation"
    node: str
    module: str | None


@dataclass(frozen=True)
class MoveActivation(Edit):
    """Let one call of an activation work on another value; `add` reads it then, or without one all that read the value."""

    op = "move_activation"
    node: str
    behind: str
    add: str | None


@dataclass(frozen=True)
class Precede(Edit):
    """Let the call of a float layer read its input through a new module: average pooling, or BatchNorm1d."""

    op = "precede"
    layer: str
    # The call of the layer, and the path of the new module.
    node: str
    module: str
    # Stride of the pooling, which the layer loses; empty where the module is a norm over so many channels.
    pool: tuple[int, ...] = ()
    norm: int = 0

    @classmethod
    def from_arguments(cls, container: str, args: Mapping[str, Any]) -> Precede:
        """The edit whose `arguments` are these."""
        return cls(container, **{**args, "pool": tuple(args["pool"])})


# Edits in the graph of a container that was opened.
GraphEdit = AddShortcut | AddValue | ReplaceOperand | ReplaceActivation | MoveActivation | Precede

EDIT_KINDS: Mapping[str, type[Edit]] = {
    kind.op: kind
    for kind in (Explicit, Open, Swap, Replace, Attach, AddShortcut, AddValue, ReplaceOperand, ReplaceActivation,
                 MoveActivation, Precede)
}  # fmt: skip


def edit_from_json(data: Mapping[str, Any]) -> Edit:
    """The edit that `to_json` wrote.

    Raises: SourceError, where there is no such kind; KeyError and TypeError, where arguments are missing or too many.
    """
    kind = EDIT_KINDS.get(data["op"])
    if kind is None:
        near = did_you_mean(str(data["op"]), EDIT_KINDS)
        raise SourceError(f"not a plan: there is no edit {data['op']!r}{near}")
    return kind.from_arguments(data["container"], data["args"])
