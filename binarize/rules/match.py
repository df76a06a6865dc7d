"""Whether a rule's `match` holds for a layer: patterns, numbers and words against the facts of one layer.

A match is plain data in one canonical form: a mapping from selector to a list of alternatives (a flag has no
list). All selectors must hold; within a list one suffices; `not` and `any` hold further matches.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from binarize.rules.name_pattern import NOTHING, pattern

if TYPE_CHECKING:
    from binarize.analysis.layer import Layer

__all__ = [
    "SELECTORS",
    "counts",
    "covers",
    "holds",
    "name_counted",
    "named",
    "strays",
    "test_number",
]

# Longest text of a comparison.
_MAX_LENGTH = 1000

# Layers that `first: 3` and `last: 3` count, if they run.
_COUNTED_KINDS = ("conv", "conv_transpose", "linear")

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
_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>|=|)\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:e[0-9]+)?)\s*")


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
    return all(_COMPARE[sign](value, limit) for sign, limit in _comparisons(text))


@lru_cache(maxsize=4096)
def _comparisons(text: int | str) -> list[tuple[str, float]]:
    parts = [_COMPARISON.fullmatch(part) for part in str(text)[:_MAX_LENGTH].split(",")]
    if None in parts:
        raise ValueError(f'"{str(text)[:40]}" is no number and no comparison such as ">=64" or ">=64, <512"')
    return [(part[1], float(part[2])) for part in parts if part]


def holds(match: Mapping[str, Any], layer: Layer) -> bool:
    """Whether every selector of a canonical match holds for the layer."""
    return all(SELECTORS[key](value, layer, match) for key, value in match.items())


# Every selector: (its value, the layer, the match it stands in) -> whether it holds.
Selector = Callable[[Any, "Layer", Mapping[str, Any]], bool]


def _words(patterns: Sequence[str], words: Sequence[str]) -> bool:
    return any(pattern(text).fullmatch(word) for text in patterns for word in words)


def _name(value: Sequence[str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(covers(text, layer.name) for text in value)


def _type(value: Sequence[str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return _words(value, (layer.type, *layer.bases) if match.get("subclasses") else (layer.type,))


def _groups(value: Sequence[int | str], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(layer.depthwise if one == "depthwise" else test_number(one, layer.groups) for one in value)


def _has_skip(value: bool, layer: Layer, match: Mapping[str, Any]) -> bool:
    return (layer.skip != "none") == value


def _any(value: Sequence[Mapping[str, Any]], layer: Layer, match: Mapping[str, Any]) -> bool:
    return any(holds(one, layer) for one in value)


def _counted(value: int, layer: Layer, match: Mapping[str, Any]) -> bool:
    raise AssertionError("layers are counted by RuleSet.bind, before any rule is asked")


def _fact(name: str) -> Selector:
    """The fact is one of the words."""
    return lambda value, layer, match: getattr(layer, name) in value


def _flag(name: str) -> Selector:
    """The fact is true, or false."""
    return lambda value, layer, match: getattr(layer, name) == value


def _classes(name: str) -> Selector:
    """One of the class names in the fact fits one of the patterns."""
    return lambda value, layer, match: _words(value, getattr(layer, name))


def _number(name: str) -> Selector:
    """The fact satisfies one of the comparisons."""
    return lambda value, layer, match: any(test_number(one, getattr(layer, name)) for one in value)


def _size(name: str) -> Selector:
    """The fact, a size per dimension, is "3x1", or satisfies one of the comparisons in every dimension."""

    def test(value: Sequence[int | str], layer: Layer, match: Mapping[str, Any]) -> bool:
        size: tuple[int, ...] = getattr(layer, name)
        spelled = "x".join(map(str, size))
        return bool(size) and any(
            one == spelled if "x" in str(one) else all(test_number(one, n) for n in size) for one in value
        )

    return test


SELECTORS: dict[str, Selector] = {
    "name": _name,
    "type": _type,
    "subclasses": lambda value, layer, match: True,
    "kind": _fact("kind"),
    "position": _fact("position"),
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
    "inside": _classes("inside"),
    "before": _classes("followed_by"),
    "after": _classes("preceded_by"),
    "downsample": _flag("downsample"),
    "gate": _flag("gate"),
    "input_sign": _fact("input_sign"),
    "first": _counted,
    "last": _counted,
    "not": lambda value, layer, match: not _any(value, layer, match),
    "any": _any,
}


def counts(match: Mapping[str, Any]) -> bool:
    """Whether a match holds `first: 3` or `last: 3` somewhere."""
    inner = [*match.get("not", ()), *match.get("any", ())]
    return "first" in match or "last" in match or any(counts(one) for one in inner)


def name_counted(match: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Any]:
    """The match with the names of the first (last) N layers in place of `first: N` (`last: N`)."""
    result = {key: value for key, value in match.items() if key not in ("first", "last")}
    for key in ("not", "any"):
        if key in match:
            result[key] = [name_counted(one, layers) for one in match[key]]
    counted = (one for one in layers if one.kind in _COUNTED_KINDS and one.calls)
    ordered = sorted(counted, key=lambda one: one.order)
    for key in ("first", "last"):
        if key in match:
            n = match[key]
            names = named([one.name for one in (ordered[:n] if key == "first" else ordered[-n:])], layers)
            if "name" not in result:
                result["name"] = names
            else:
                # Both must hold, and a selector stands in a match once: not (not these names).
                result["not"] = [*result.get("not", ()), {"not": [{"name": names}]}]
    return result


def named(names: Sequence[str], layers: Sequence[Layer]) -> list[str]:
    """Patterns that match these layers and no other; one that matches nothing where there are none."""

    def exact(name: str) -> str:
        special = name.startswith("re:") or any(c in name for c in "*?[")
        inside = any(other.name.startswith(name + ".") for other in layers)
        return "re:" + re.escape(name) if special or inside or not name else name

    return [exact(name) for name in names] or [NOTHING]


# Selectors whose values are spelled by hand and can be misspelled, and where the words in question stand.
_SPELLED: dict[str, Callable[[Layer], Sequence[str]]] = {
    "name": lambda layer: (layer.name,),
    "type": lambda layer: (layer.type, *layer.bases),
    "inside": lambda layer: layer.inside,
    "before": lambda layer: layer.followed_by,
    "after": lambda layer: layer.preceded_by,
}


def strays(match: Mapping[str, Any], layers: Sequence[Layer]) -> Iterator[tuple[str, str, list[str]]]:
    """(selector, pattern, all words it was compared with) for each pattern that fits no layer.

    Of class names only the first is given, and only where all in the list fit nothing: [Conv1d, Conv2d] is
    meant for models with either. Patterns inside `not` are left out: what excludes nothing does no harm.
    """
    for key, words_of in _SPELLED.items():
        words = list(dict.fromkeys(word for layer in layers for word in words_of(layer)))
        if key == "name":
            lost = [text for text in match.get(key, ()) if not any(covers(text, word) for word in words)]
        else:
            lost = [] if _words(match.get(key, ()), words) else match.get(key, [])[:1]
        for text in lost:
            yield key, text, words
    for one in match.get("any", ()):
        yield from strays(one, layers)
