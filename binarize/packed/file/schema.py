"""What the index of a packed file may say of layers and tensors; a fault is told with the path of its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from binarize.errors import UsageError

__all__ = ["check_index"]

# Far beyond any layer; what a layer takes of memory is compared with the file's size as well.
_FAR, _MOST_PLANES, _MOST_CHANNELS = 1 << 16, 1 << 10, 1 << 31
_Channels = Annotated[int, Field(ge=1, le=_MOST_CHANNELS)]
_Steps = Annotated[list[Annotated[int, Field(ge=1, le=_FAR)]], Field(max_length=3)]
_Sides = Annotated[list[Annotated[int, Field(ge=0, le=_FAR)]], Field(max_length=6)]
_Number = Annotated[float, Field(allow_inf_nan=False, ge=-3.5e38, le=3.5e38)]
# Of `_MOST_NUMBERS`, `_MOST_AXES` of the tables.
_Shape = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 48)]], Field(max_length=16)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _Window(_Said):
    kind: Literal["conv", "conv_transpose", "linear"]
    in_channels: _Channels
    out_channels: _Channels
    kernel: _Steps = Field(default_factory=list)
    stride: _Steps = Field(default_factory=list)
    dilation: _Steps = Field(default_factory=list)
    padding: _Sides = Field(default_factory=list)
    output_padding: _Sides = Field(default_factory=list)
    groups: _Channels = 1
    padding_mode: Literal["zeros", "reflect", "replicate", "circular", "same"] = "zeros"


class _Layer(_Said):
    window: _Window
    planes: Annotated[int, Field(ge=1, le=_MOST_PLANES)] = 1
    window_scale: bool = False
    threshold: Literal["", "one", "each"] = ""
    outside: _Number = 0.0
    pad_value: _Number = 0.0
    zero_one: bool = False
    float_input: bool = False


class _Index(_Said):
    layers: dict[str, _Layer]
    # (name, shape, kind), checked as lists where they are read.
    rest: list[Annotated[list[str | _Shape], Field(min_length=3, max_length=3)]]
    about: dict[str, Any]


_INDEX = TypeAdapter(_Index)


def check_index(index: Mapping[str, Any]) -> None:
    """Raises: UsageError, which begins with the path of the first key that is wrong."""
    try:
        _INDEX.validate_python(dict(index))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part)[:80] for part in first["loc"] if part != "constrained-list")
        found = f", found {str(first['input'])[:60]}" if first["type"] != "missing" else ""
        raise UsageError(f"{path or 'index'}: {first['msg']}{found}") from None
