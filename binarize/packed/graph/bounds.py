"""What a step of a graph may give beside tensors: numbers and short lists.

Operators take plain numbers and lists as well as tensors, and methods cut a tensor into pieces. A few bytes of a file can
ask for a number of a billion digits, or for a list of a billion views, which no count of tensors' bytes shows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from binarize.errors import UsageError

__all__ = ["TooLarge", "check_plain"]

# Items of a list, pieces of a tensor, and bits of a number: far more than sizes and shapes take.
_MOST_ITEMS, _MOST_BITS = 1 << 16, 1 << 12
_JOIN = (operator.add, operator.iadd)
_TIMES = (operator.mul, operator.imul)
_SPLIT = ("chunk", "split", "tensor_split", "unbind")


class TooLarge(UsageError):
    """The steps of a graph would take more memory or time than the file explains."""


def check_plain(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises: TooLarge, where a step would give a number or a list that is too large to be meant."""
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if name in _SPLIT:
        _check_pieces(name, args, kwargs)
    plain = type(target).__name__ == "builtin_function_or_method" and (
        getattr(operator, name, None) is target or getattr(math, name, None) is target
    )
    if not plain:
        return
    lists = [one for one in args if isinstance(one, (str, list, tuple))]
    if lists:
        _check_list(target, args, lists)
    elif not any(isinstance(one, Tensor) for one in args):
        _check_number(target, name, args)
    elif target is math.prod and args[0].dim() and len(args[0]) > _MOST_ITEMS:
        raise TooLarge(f"graph: {name} of a tensor of {len(args[0]):,} rows")


def _check_number(target: Any, name: str, args: Sequence[Any]) -> None:
    whole = [abs(one) for one in args if isinstance(one, int)]
    if target is operator.pow and len(whole) == 2:
        bits = whole[0].bit_length() * whole[1]
    else:
        bits = sum(one.bit_length() for one in whole)
    if bits > _MOST_BITS:
        raise TooLarge(f"graph: {name} gives a number of {bits:,} bits; at most {_MOST_BITS:,} are expected")


def _check_list(target: Any, args: Sequence[Any], lists: Sequence[Any]) -> None:
    if target in _JOIN:
        items = sum(len(one) if hasattr(one, "__len__") else 0 for one in args)
    elif target in _TIMES:
        items = len(lists[0]) * max((one for one in args if isinstance(one, int)), default=1)
    elif target is math.prod:
        items = sum(abs(one).bit_length() for one in lists[0] if isinstance(one, int))
    else:
        return
    # Lists of lists of one list, which is small, are endless to whoever walks through them.
    nested = target is not math.prod and any(
        isinstance(one, (list, tuple, dict)) for each in lists for one in each
    )
    if items > _MOST_ITEMS or nested:
        raise TooLarge(
            f"graph: {target.__name__} gives a list of {'lists' if nested else f'{items:,} items'}; at most "
            f"{_MOST_ITEMS:,} numbers or tensors are expected"
        )


def _check_pieces(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    said = [*args[1:], *kwargs.values()]
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or not x.dim():
        return
    if name in ("chunk", "tensor_split"):
        pieces = max((one for one in said if type(one) is int), default=0)
    else:
        # Along which axis is not looked up: the longest is the worst.
        size = said[0] if said and name == "split" else 1
        pieces = max(x.shape) // max(size, 1) if type(size) is int else 0
    if pieces > _MOST_ITEMS:
        raise TooLarge(
            f"graph: {name} cuts a tensor into {pieces:,} pieces; at most {_MOST_ITEMS:,} are expected"
        )
