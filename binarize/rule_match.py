"""Whether a rule's `match` holds for a layer: patterns, numbers and words against the facts of one layer.

A match is plain data in one canonical form: a mapping from selector to a list of alternatives (a flag has no
list). All selectors must hold; within a list one suffices; `not` and `any` hold further matches.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binarize.analysis import Layer

__all__ = ["COUNTING", "SELECTORS", "holds", "pattern", "test_number"]

# Selectors that count layers: they need the whole list and are turned into names before a rule is asked.
COUNTING = ("first", "last")

# Longest run of numbers that [0-11] in a name may stand for.
_MAX_RANGE = 10_000

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "": operator.eq,
}
_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>|=|)\s*(\d[\d_]*(?:\.\d+)?(?:e\d+)?)\s*")
_PIECE = re.compile(r"\*\*\.|\.\*\*$|\*\*|\*|\?|\[(\d+)-(\d+)\]|[^*?\[]+|\[")


@lru_cache(maxsize=4096)
def pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a name pattern, for `fullmatch` on a dotted path.

    `*` and `?` stay inside a segment, `**` crosses segments (`**.` also stands for none), `[0-11]` is a
    number from a range; text after `re:` is a regular expression already.
    Raises ValueError with the reason where it is neither.
    """
    if text.startswith("re:"):
        try:
            return re.compile(text[3:])
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from error
    pieces = []
    for piece in _PIECE.finditer(text):
        match piece[0]:
            case "**.":
                pieces.append(r"(?:[^.]+\.)*")
            case ".**":
                pieces.append(r"\..+")
            case "**":
                pieces.append(".*")
            case "*":
                pieces.append("[^.]*")
            case "?":
                pieces.append("[^.]")
            case "[":
                raise ValueError(
                    f'{text!r}: "[" begins a range of numbers such as [0-11]; use re: for anything else'
                )
            case literal if piece[1] is None:
                pieces.append(re.escape(literal))
            case _:
                low, high = int(piece[1]), int(piece[2])
                if not low <= high < low + _MAX_RANGE:
                    raise ValueError(f"{text!r}: {piece[0]} is no range of numbers")
                pieces.append("(?:" + "|".join(map(str, range(low, high + 1))) + ")")
    return re.compile("".join(pieces))


def covers(text: str, name: str) -> bool:
    """Whether a name pattern covers a layer: it matches its whole path, or that of a container around it.

    A regular expression is matched against the layer's own path alone.
    """
    compiled = pattern(text)
    if compiled.fullmatch(name):
        return True
    if text.startswith("re:"):
        return False
    return any(compiled.fullmatch(name[:i]) for i, char in enumerate(name) if char == ".")


def test_number(text: int | str, value: float) -> bool:
    """Whether a number satisfies `3`, `">=64"` or `">=64, <512"` (all of them).

    Raises ValueError where the text is no comparison.
    """
    for comparison in str(text).split(","):
        parts = _COMPARISON.fullmatch(comparison)
        if parts is None:
            raise ValueError(f'{text!r} is no number and no comparison such as ">=64" or ">=64, <512"')
        if not _COMPARE[parts[1]](value, float(parts[2])):
            return False
    return True


def holds(match: Mapping[str, Any], layer: Layer) -> bool:
    """Whether every selector of a canonical match holds for the layer."""
    return all(
        SELECTORS[key](value, layer, match) for key, value in match.items() if key not in ("subclasses",)
    )


# Every selector: (its value, the layer, the match it stands in) -> whether it holds.
Selector = Callable[[Any, "Layer", Mapping[str, Any]], bool]


def _words(patterns: Sequence[str], words: Sequence[str]) -> bool:
    return any(pattern(text).fullmatch(word) for text in patterns for word in words)


def _name(value: Sequence[str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(covers(text, layer.name) for text in value)


def _type(value: Sequence[str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return _words(value, (layer.type, *layer.bases) if match.get("subclasses") else (layer.type,))


def _position(value: Sequence[str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return layer.position in value


def _groups(value: Sequence[int | str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(layer.depthwise if one == "depthwise" else test_number(one, layer.groups) for one in value)


def _has_skip(value: bool, layer: Layer, match: Mapping[str, Any]) -> bool:
    return (layer.skip != "none") == value


def _not(value: Sequence[Mapping[str, Any]], layer: Layer, match: Mapping[str, Any]) -> bool:
    return not any(holds(one, layer) for one in value)


def _any(value: Sequence[Mapping[str, Any]], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(holds(one, layer) for one in value)


def _counting(value: int, layer: Layer, match: Mapping[str, Any]) -> bool:
    raise AssertionError("a rule that counts layers was asked before RuleSet.bind(layers)")


def _fact(name: str) -> Selector:
    """The fact is one of the words (or, for a flag, equals it)."""

    def test(value: Any, layer: Layer, match: Mapping[str, Any]) -> bool:
        fact = getattr(layer, name)
        return fact == value if isinstance(value, bool) else fact in value

    return test


def _seen(name: str) -> Selector:
    """One of the class names in the fact fits one of the patterns."""
    return lambda value, layer, match: _words(value, getattr(layer, name))


def _number(name: str) -> Selector:
    """The fact satisfies one of the comparisons."""
    return lambda value, layer, match: any(test_number(one, getattr(layer, name)) for one in value)


def _size(name: str) -> Selector:
    """The fact, a size per dimension, is "3x1", or satisfies one of the comparisons in every dimension."""

    def test(value: Sequence[int | str], layer: Layer, match: Mapping[str, Any]) -> bool:
        size: tuple[int, ...] = getattr(layer, name)
        return bool(size) and any(
            "x".join(map(str, size)) == one if "x" in str(one) else all(test_number(one, n) for n in size)
            for one in value
        )

    return test


SELECTORS: dict[str, Selector] = {
    "name": _name,
    "type": _type,
    "kind": _fact("kind"),
    "position": _position,
    "kernel": _size("kernel"),
    "stride": _size("stride"),
    "dilation": _size("dilation"),
    "groups": _groups,
    "in": _number("in_channels"),
    "out": _number("out_channels"),
    "params": _number("params"),
    "calls": _number("calls"),
    "has_skip": _has_skip,
    "skip": _fact("skip"),
    "inside": _seen("inside"),
    "before": _seen("followed_by"),
    "after": _seen("preceded_by"),
    "downsample": _fact("downsample"),
    "gate": _fact("gate"),
    "input_sign": _fact("input_sign"),
    "first": _counting,
    "last": _counting,
    "not": _not,
    "any": _any,
}
