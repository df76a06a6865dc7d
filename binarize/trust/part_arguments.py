"""Arguments that a file may give to a part: numbers of a sensible size, truth values, words or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = ["are_part_arguments"]

# Arguments of parts that count channels, and how large these and other whole numbers may be.
_CHANNELS = ("channels", "num_channels", "num_features", "num_parameters", "normalized_shape")
_MOST_CHANNELS, _MOST_WHOLE = 1 << 17, 1 << 12


def are_part_arguments(arguments: Mapping[str, object]) -> bool:
    """Whether these are numbers of a sensible size, truth values, words or nothing: what a part of ours is made with."""
    return all(_is_part_argument(key, value) for key, value in arguments.items())


def _is_part_argument(key: str, value: object) -> bool:
    if key in ("device", "dtype"):
        return False
    if type(value) is int:
        return abs(value) <= (_MOST_CHANNELS if key in _CHANNELS else _MOST_WHOLE)
    if type(value) is float:
        return math.isfinite(value)
    word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,40}", value)
    return value is None or type(value) is bool or bool(word)
