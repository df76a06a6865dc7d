"""What a step of a graph may give beside tensors: numbers and short lists.

Operators take plain numbers and lists as well as tensors, and methods cut a tensor into pieces. A few bytes of a file can
ask for a number of a billion digits, or for a list of a billion views, which no count of tensors' bytes shows. Some of
these numbers are known only when the model runs (how many values are not 0), so that its forward is guarded too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from binarize.capture.code import Guard
from binarize.errors import UsageError

__all__ = ["GUARD", "TooLarge", "check_plain"]

# Items of a list, pieces of a tensor, and bits of a number: far more than sizes and shapes take.
_MOST_ITEMS, _MOST_BITS = 1 << 16, 1 << 12
_JOIN = (operator.add, operator.iadd)
_TIMES = (operator.mul, operator.imul)
_OF_TENSORS = (*_JOIN, *_TIMES)
# Held here, since torch.fx replaces those of `math` while it traces.
_PRODUCT = math.prod
_PLAIN = frozenset(
    function
    for home in (operator, math)
    for function in vars(home).values()
    if type(function) is BuiltinFunctionType
)
_SPLIT = ("chunk", "split", "tensor_split", "unbind")


class TooLarge(UsageError):
    """The steps of a graph would take more memory or time than the file explains."""


def check_plain(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises: TooLarge, where a step would give a number or a list that is too large to be meant."""
    name = _name(target)
    if name in _SPLIT:
        _check_pieces(name, args, kwargs)
    if not _is_plain(target):
        return
    lists = [one for one in args if isinstance(one, (str, list, tuple))]
    if lists:
        _check_list(target, args, lists)
    elif not any(isinstance(one, Tensor) for one in args):
        _check_number(target, name, args)
    elif target is _PRODUCT and _rows(args[0]) > _MOST_ITEMS:
        raise TooLarge(f"graph: {name} of a tensor of {len(args[0]):,} rows")


def _name(target: object) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _is_plain(target: object) -> bool:
    """Whether this is a function of Python's `operator` or `math`."""
    return type(target) is BuiltinFunctionType and target in _PLAIN


def _rows(x: object) -> int:
    return len(x) if isinstance(x, Tensor) and x.dim() else 0


def _concerns(node: Node) -> bool:
    called = node.op in ("call_function", "call_method")
    return called and (_name(node.target) in _SPLIT or _is_plain(node.target))


def _check_running(target: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """The same ahead of a step that runs on numbers. torch.compile has none, and would record the check."""
    # torch.fx puts a function of its own around those that it may not look into.
    target = getattr(target, "__wrapped__", target)
    # Tensors alone, which is what the steps of most models add and multiply, give a tensor.
    if target in _OF_TENSORS and all(type(one) is Tensor for one in args):
        return
    if not torch.compiler.is_dynamo_compiling():
        check_plain(target, args, kwargs)


GUARD = Guard(_concerns, _check_running)


def _check_number(target: object, name: str, args: Sequence[Any]) -> None:
    whole = [abs(one) for one in args if isinstance(one, int)]
    if target is operator.pow and len(whole) == 2:
        bits = whole[0].bit_length() * whole[1]
    else:
        bits = sum(one.bit_length() for one in whole)
    if bits > _MOST_BITS:
        raise TooLarge(f"graph: {name} gives a number of {bits:,} bits; at most {_MOST_BITS:,} are expected")


def _check_list(target: object, args: Sequence[Any], lists: Sequence[Any]) -> None:
    if target in _JOIN:
        items = sum(len(one) if hasattr(one, "__len__") else 0 for one in args)
    elif target in _TIMES:
        items = len(lists[0]) * max((_times(one) for one in args), default=1)
    elif target is _PRODUCT:
        items = sum(abs(one).bit_length() for one in lists[0] if isinstance(one, int))
    else:
        return
    # Lists of lists of one list, which is small, are endless to whoever walks through them.
    nested = target is not _PRODUCT and any(
        isinstance(one, (list, tuple, dict)) for each in lists for one in each
    )
    if items > _MOST_ITEMS or nested:
        raise TooLarge(
            f"graph: {target.__name__} gives a list of {'lists' if nested else f'{items:,} items'}; at most "
            f"{_MOST_ITEMS:,} numbers or tensors are expected"
        )


def _times(one: object) -> int:
    """How often a list would be repeated: a tensor of one whole number is a number there."""
    if isinstance(one, Tensor):
        whole = one.numel() == 1 and not one.is_floating_point() and not one.is_complex()
        return int(one) if whole else 1
    return one if isinstance(one, int) else 1


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
