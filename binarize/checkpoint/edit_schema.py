"""What the edits of a saved plan may hold: one model for the arguments of each operation of `binarize.passes`.

Whether the named modules and nodes exist is seen when the edit is replayed on the float model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, Field, create_model

from binarize.checkpoint.data_schema import FINITE, JSON, SIZE, TEXT, Checked
from binarize.passes.norm import NORMS
from binarize.planning.thresholds import KNOWN_ACTIVATIONS
from binarize.rules.values import checked_part, words

__all__ = ["EDIT"]

# Terms within terms of an origin: the planner joins 64 at most, each one level deeper.
_MOST_TERMS = 128
# Positions along an axis of the output that a scale has factors for.
_MOST_POSITIONS = 4096
# Axes of a tensor, and factors of a shortcut, a window or a repetition.
_AXIS = Annotated[int, Field(ge=-8, le=8)]
_FACTOR = Annotated[int, Field(ge=1, le=1 << 20)]
_CHANNELS = Annotated[int, Field(ge=0, le=1 << 24)]


_KNOWN = words(*sorted(KNOWN_ACTIVATIONS))
_NORM = words(*NORMS)
_PART = Annotated[JSON, AfterValidator(checked_part)]
_NAMES = Annotated[list[TEXT], Field(max_length=1 << 16)]


class _Origin(Checked):
    """What a threshold starts from: a tree of modules whose parameters tell means and variances."""

    norm: TEXT | None = None
    terms: Annotated[list[_Origin], Field(max_length=_MOST_TERMS)] | None = None
    op: Literal["add", "concat", "repeat", "mean", "unit"] | None = None
    times: _FACTOR = 1
    activation: _KNOWN  # type: ignore[valid-type]
    window: _FACTOR
    factor: FINITE


class _Shortcut(Checked):
    pool: Annotated[list[SIZE], Field(max_length=3)]
    repeat: _FACTOR
    mean: _FACTOR
    conv: bool
    scale: bool = False


class _Activation(Checked):
    part: _PART | None
    channels: _CHANNELS
    channel_dim: _AXIS


class _Swap(Checked):
    scheme: TEXT
    norm: _NORM | None  # type: ignore[valid-type]
    input_norm: _NORM | None  # type: ignore[valid-type]
    threshold: _Origin | None
    own_threshold: bool
    shortcut: _Shortcut | None
    shortcut_inside: bool
    activation: _Activation | None
    activation_inside: bool
    channel_dim: _AXIS
    activation_first: bool = False
    size: Annotated[list[Annotated[int, Field(ge=1, le=_MOST_POSITIONS)]], Field(max_length=3)] = []


class _Open(Checked):
    opened: _NAMES
    concrete: dict[TEXT, bool | int | float | TEXT | None]


class _AddShortcut(Checked):
    layer: TEXT
    after: TEXT
    source_of: TEXT
    activation: bool


class _AddValue(Checked):
    layer: TEXT
    after: TEXT
    value: TEXT
    activation: bool
    summed: bool = False


class _Operand(Checked):
    node: TEXT
    old: TEXT
    new: TEXT
    summed: bool = False


class _Call(Checked):
    node: TEXT
    module: TEXT | None


class _Move(Checked):
    node: TEXT
    behind: TEXT
    add: TEXT | None


class _Precede(Checked):
    layer: TEXT
    node: TEXT
    module: TEXT
    pool: Annotated[list[SIZE], Field(max_length=3)]
    norm: _CHANNELS


class _Nothing(Checked):
    pass


_ARGUMENTS: dict[str, type[Checked]] = {
    "explicit": _Nothing,
    "open": _Open,
    "swap": _Swap,
    "replace": _Activation,
    "attach": _Activation,
    "add_shortcut": _AddShortcut,
    "add_value": _AddValue,
    "replace_operand": _Operand,
    "replace_activation": _Call,
    "move_activation": _Move,
    "precede": _Precede,
}


def _edit(op: str, arguments: type[Checked]) -> Any:
    fields: Any = {"container": (TEXT, ...), "op": (Literal[op], ...), "args": (arguments, ...)}
    return create_model(f"Edit_{op}", __base__=Checked, **fields)


_EDITS = tuple(_edit(op, arguments) for op, arguments in _ARGUMENTS.items())
EDIT: Any = Annotated[Union[_EDITS], Field(discriminator="op")]  # noqa: UP007 (built, not written)
