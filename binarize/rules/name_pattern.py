"""Patterns for dotted names, matched in a time that grows with pattern and name alone, whatever stands in them.

A pattern comes from a file of somebody else's as well, and backtracking over one takes as long as its writer likes. So
globs are matched here, by the set of places in the name that the pieces so far may end at; regular expressions after
`re:` by RE2, which has no lookaround and no references to groups for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

__all__ = ["NOTHING", "NamePattern", "pattern"]

# A pattern that matches no name.
NOTHING = "re:(?!)"
# Longest run of numbers that [0-11] in a name may stand for, and longest pattern: far more than names need.
_MAX_RANGE = 1000
_MAX_LENGTH = 1000
# Bytes that RE2 may take for the automaton of one expression.
_MAX_MEMORY = 8 << 20

_PIECE = re.compile(r"(?:(?<=\.)|\A)\*\*\.|\.\*\*\Z|\*\*|\*|\?|\[([0-9]{1,9})-([0-9]{1,9})\]|[^*?\[.]+|\[|\.")

# Places in a name -> the places that one more piece of the pattern may end at.
_Step = Callable[[str, set[int]], set[int]]


class NamePattern:
    """A pattern that is matched against whole names."""

    def __init__(self, matches: Callable[[str], bool]) -> None:
        self._matches = matches

    def fullmatch(self, name: str) -> bool:
        """Whether the pattern matches all of a name."""
        return self._matches(name)


@lru_cache(maxsize=4096)
def pattern(text: str) -> NamePattern:
    """The pattern that a text means.

    `*` and `?` stay inside a segment, `**` crosses segments (and in `**.conv1` also stands for none), `[0-11]` is a
    number from a range; text after `re:` is a regular expression of RE2. Raises ValueError with the reason where it is
    neither.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f'"{text[:40]}..." has {len(text)} characters; a pattern has at most {_MAX_LENGTH}')
    if text == NOTHING:
        return NamePattern(lambda name: False)
    if text.startswith("re:"):
        return NamePattern(_expression(text))
    if not any(c in text for c in "*?["):
        return NamePattern(text.__eq__)
    steps = [_step(piece, text) for piece in _PIECE.finditer(text)]
    return NamePattern(lambda name: len(name) in _ends(steps, name))


def _ends(steps: Iterable[_Step], name: str) -> set[int]:
    places = {0}
    for step in steps:
        places = step(name, places)
        if not places:
            break
    return places


def _step(piece: re.Match[str], text: str) -> _Step:
    if piece[0] == "[":
        raise ValueError(f'"{text}": "[" begins a range of numbers such as [0-11]; use re: for all else')
    if piece[1] is None:
        return _WILD.get(piece[0]) or _literal(piece[0])
    low, high = int(piece[1]), int(piece[2])
    if not low <= high < low + _MAX_RANGE:
        raise ValueError(f'"{text}": {piece[0]} is no range of up to {_MAX_RANGE} numbers')
    return _numbers(low, high)


def _literal(word: str) -> _Step:
    return lambda name, places: {i + len(word) for i in places if name.startswith(word, i)}


def _numbers(low: int, high: int) -> _Step:
    """A number as it is usually written, without zeros in front."""

    def step(name: str, places: set[int]) -> set[int]:
        ends = set()
        for i in places:
            for end in range(i + 1, i + 1 + len(str(high))):
                digits = name[i:end]
                if digits.isascii() and digits.isdecimal() and str(int(digits)) == digits:
                    ends |= {end} if low <= int(digits) <= high else set()
        return {end for end in ends if end <= len(name)}

    return step


def _one(name: str, places: set[int]) -> set[int]:
    return {i + 1 for i in places if i < len(name) and name[i] != "."}


def _inside(name: str, places: set[int]) -> set[int]:
    """Any number of characters of one segment."""
    ends = set(places)
    for i in range(min(places), len(name)):
        if i in ends and name[i] != ".":
            ends.add(i + 1)
    return ends


def _across(name: str, places: set[int]) -> set[int]:
    return set(range(min(places), len(name) + 1))


def _segments(name: str, places: set[int]) -> set[int]:
    """Any number of whole segments, each with the dot behind it."""
    ends, begun = set(places), -1
    for i in range(min(places), len(name)):
        # The start of the segment in which a way may go on to its dot.
        if i in ends:
            begun = i
        if name[i] == ".":
            if 0 <= begun < i:
                ends.add(i + 1)
            begun = -1
    return ends


def _below(name: str, places: set[int]) -> set[int]:
    """A dot and at least one more character, to the end."""
    return {len(name)} if any(i + 1 < len(name) and name[i] == "." for i in places) else set()


_WILD: dict[str, _Step] = {"**.": _segments, ".**": _below, "**": _across, "*": _inside, "?": _one}


def _expression(text: str) -> Callable[[str], bool]:
    """RE2's match of what stands after `re:`. Raises ValueError."""
    try:
        import re2  # only the few who write one need it
    except ModuleNotFoundError:
        raise ValueError(f'"{text}": regular expressions need google-re2: pip install google-re2') from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        compiled = re2.compile(text[3:], options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else error
        words = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(
            f'"{text}" is no regular expression of RE2, which has no lookaround and no references: {words}'
        ) from error

    def matches(name: str) -> bool:
        # Half a surrogate pair is in no alphabet, and matched by nothing but a dot.
        return compiled.fullmatch(name.encode("utf-8", "replace").decode()) is not None

    return matches
