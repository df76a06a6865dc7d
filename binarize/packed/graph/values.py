"""Arguments of a graph's operators as JSON values.

null, true, 1, 0.5, "text", [...]      themselves; texts are of letters, digits and a few signs
{"node": 3}                            what step 3 gave
{"tuple": [...]}  {"dict": [[key, value], ...]}  {"slice": [start, stop, step]}  {"ellipsis": true}
{"float": "inf"}                       "-inf" and "nan" likewise
{"dtype": "float32"}  {"memory_format": "channels_last"}  {"device": "cpu"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from binarize.errors import UsageError

__all__ = ["decode", "encode"]

# Equations of einsum, modes, names of fields: nothing that could end a text or begin a name in printed code.
_TEXT = re.compile(r"[A-Za-z0-9_ .,:>()-]{0,200}")
_DEEPEST = 16
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bfloat16, torch.bool, torch.float16, torch.float32, torch.float64, torch.int16, torch.int32, torch.int64,
        torch.int8, torch.uint8,
    )
}  # fmt: skip
_FORMATS = {
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
}
_FLOATS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}


def encode(value: Any, index_of: Callable[[Node], int]) -> Any:
    """The JSON value of an argument; `index_of` counts back to a node.

    Raises: UsageError, where it is none that a graph may hold.
    """
    if isinstance(value, Node):
        return {"node": index_of(value)}
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is str and _TEXT.fullmatch(value):
        return value
    if type(value) is float:
        return value if abs(value) < float("inf") else {"float": str(value)}
    if isinstance(value, slice):
        return {"slice": [encode(one, index_of) for one in (value.start, value.stop, value.step)]}
    if isinstance(value, list):
        return [encode(one, index_of) for one in value]
    if type(value) in (tuple, torch.Size) or (isinstance(value, tuple) and not hasattr(value, "_fields")):
        return {"tuple": [encode(one, index_of) for one in value]}
    if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
        return {"dict": [[encode(key, index_of), encode(one, index_of)] for key, one in value.items()]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if value == torch.device("cpu"):
        return {"device": "cpu"}
    for kind, names in (("dtype", _DTYPES), ("memory_format", _FORMATS)):
        for name, known in names.items():
            if value is known:
                return {kind: name}
    raise UsageError(f"an operator is given a {type(value).__name__}, which no file holds: {str(value)[:40]}")


def decode(data: object, nodes: Sequence[Node], deep: int = 0) -> Any:
    """The argument that a JSON value stands for, its nodes among those made before.

    Raises: UsageError, where it stands for none.
    """
    if deep > _DEEPEST:
        raise UsageError("an argument is nested too deep")
    if data is None or type(data) in (bool, float):
        return data
    if type(data) is int and abs(data) < 1 << 63:
        return data
    if type(data) is str and _TEXT.fullmatch(data):
        return data
    if isinstance(data, list):
        return [decode(one, nodes, deep + 1) for one in data]
    if isinstance(data, dict) and len(data) == 1:
        ((kind, value),) = data.items()
        return _tagged(kind, value, nodes, deep)
    raise UsageError(f"{str(data)[:80]} is no argument of an operator")


def _tagged(kind: str, value: object, nodes: Sequence[Node], deep: int) -> Any:
    if kind == "node" and type(value) is int and 1 <= value <= len(nodes):
        return nodes[-value]
    if kind == "ellipsis" and value is True:
        return Ellipsis
    if isinstance(value, list):
        if kind == "tuple":
            return tuple(decode(one, nodes, deep + 1) for one in value)
        if kind == "slice" and len(value) == 3:
            return slice(*(decode(one, nodes, deep + 1) for one in value))
        if kind == "dict" and all(isinstance(one, list) and len(one) == 2 for one in value):
            keys = [decode(key, nodes, deep + 1) for key, _ in value]
            if all(type(key) in (int, str) for key in keys):
                return {key: decode(one, nodes, deep + 1) for key, (_, one) in zip(keys, value)}
    if isinstance(value, str):
        if kind == "device" and value == "cpu":
            return torch.device("cpu")
        tables: dict[str, dict[str, Any]] = {"dtype": _DTYPES, "memory_format": _FORMATS, "float": _FLOATS}
        if value in tables.get(kind, {}):
            return tables[kind][value]
    raise UsageError(f"{str({kind: value})[:80]} is no argument of an operator")
