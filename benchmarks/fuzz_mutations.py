"""Changes to a file that an attacker, or a broken disk, might make: to its tree of values, or to its bytes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["mutated_bytes", "mutated_tree"]

_NUMBERS = [
    0,
    1,
    -1,
    2,
    255,
    1 << 15,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 63) - 1,
    1 << 63,
    -(1 << 63),
    1 << 200,
]
_FLOATS = [0.5, -0.0, 1e-300, 1e38, 1e300, float("inf"), float("-inf"), float("nan")]
_TEXTS = ["", "x", "a.b", "forward", "training", "__class__", "../../x", "\x1b]0;x\x07", "\u00e9", "\ud800", "x" * 5000,
          "re:((((.+)+)+)+)+!", "*" * 900 + "x", '1"); x("', "os:system", "none", "source", "1e999", "0" * 40]  # fmt: skip
_DEEP = 300


def mutated_tree(value: Any, draw: random.Random) -> tuple[str, Any]:
    """(what was done in words, a copy of the tree with one to three changes)."""
    tree, said = copy.deepcopy(value), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree, ()))
        if not places:
            break
        holder, key, path = draw.choice(places)
        said.append(f"{_change(holder, key, places, draw)} {path}")
    return "; ".join(said), tree


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, Any, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key, ".".join(map(str, (*path, key)))
        yield from _places(item, (*path, key))


def _change(holder: Any, key: Any, places: list[Any], draw: random.Random) -> str:
    what = draw.choice(
        ("delete", "duplicate", "type", "number", "text", "nest", "exchange", "rename", "near", "empty")
    )
    old = holder[key]
    if what == "delete":
        del holder[key]
    elif what == "duplicate" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(old))
    elif what == "rename" and isinstance(holder, dict):
        holder[draw.choice(_TEXTS)] = holder.pop(key)
    elif what == "nest":
        deep: Any = old
        for _ in range(draw.choice((1, 2, _DEEP))):
            deep = [deep] if draw.random() < 0.5 else {"x": deep}
        holder[key] = deep
    elif what == "exchange":
        other, there, _ = draw.choice(places)
        if (isinstance(other, dict) and there not in other) or (
            isinstance(other, list) and there >= len(other)
        ):
            return "nothing at"
        holder[key] = copy.deepcopy(other[there])
    elif what == "near" and isinstance(old, (int, float)) and not isinstance(old, bool):
        holder[key] = draw.choice((old + 1, old - 1, -old, old * 2, old * 1000, float(old), str(old)))
    elif what == "near" and isinstance(old, str) and old:
        at = draw.randrange(len(old))
        holder[key] = draw.choice((old[:at], old + old, old[:at] + "." + old[at:], old.upper()))
    elif what == "number":
        holder[key] = draw.choice((*_NUMBERS, *_FLOATS))
    elif what == "text":
        holder[key] = draw.choice(_TEXTS)
    elif what == "empty":
        holder[key] = draw.choice(([], {}, "", None))
    else:
        holder[key] = draw.choice((None, True, False, 7, 0.5, "text", [], {}, [1], {"a": 1}, [[]], [None]))
    return what


def mutated_bytes(raw: bytes, draw: random.Random) -> tuple[str, bytes]:
    """(what was done in words, the bytes with one to four changes)."""
    data, said = bytearray(raw), []
    for _ in range(draw.choice((1, 1, 2, 4))):
        what = draw.choice(("flip", "byte", "cut", "end", "insert", "repeat"))
        at = draw.randrange(len(data)) if data else 0
        length = draw.choice((1, 2, 8, 100))
        if what == "flip" and data:
            data[at] ^= 1 << draw.randrange(8)
        elif what == "byte" and data:
            data[at] = draw.choice((0, 255, 10, 34, 44, 58, 91, 93, 123, 125, draw.randrange(256)))
        elif what == "cut":
            del data[at : at + length]
        elif what == "end":
            del data[at:]
        elif what == "insert":
            data[at:at] = draw.choice(
                (b"\0", b"[", b"{", b'"', b"\xff\xfe", b"9" * 400, b"- ", b"\n", b"&a *a", b"!!x ")
            )
        else:
            data[at:at] = data[at : at + length] * draw.choice((1, 50))
        said.append(f"{what} {at}")
    return "; ".join(said), bytes(data)
