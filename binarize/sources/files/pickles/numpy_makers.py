"""Arrays and numbers of numpy, made of their bytes and a closed list of types.

Numpy's own functions trust the state that they are given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from binarize.sources.files.pickles.inert import Named
from binarize.sources.files.pickles.instance_dicts import HostileObject

__all__ = ["array_state", "dtype", "dtype_state", "numpy_names", "reconstruct", "scalar"]

NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


def dtype(code: object, align: object = False, copy: object = True) -> np.dtype[Any]:
    if not isinstance(code, str) or code not in NUMBERS or not {type(align), type(copy)} <= {bool, int}:
        raise HostileObject(f"a numpy type in it is not one of plain numbers ({code!r:.40})")
    return np.dtype(code)


def dtype_state(made: np.dtype[Any], state: object) -> np.dtype[Any]:
    """Nothing but the order of bytes may be said of a plain type."""
    order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
    if order not in ("<", ">", "|", "=") or state != (3, order, None, None, None, -1, -1, 0):
        raise HostileObject("a numpy type in it has a state of its own")
    return made.newbyteorder(order) if order in "<>" else made


def scalar(kind: object, raw: object) -> np.generic:
    if not isinstance(kind, np.dtype) or not isinstance(raw, bytes) or len(raw) != kind.itemsize:
        raise ValueError("a numpy number that does not agree with its type")
    return _numbers(raw, kind)[0]


def _numbers(raw: bytes, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if kind.kind == "b" and raw and max(raw) > 1:
        raise ValueError("truth values that are neither 0 nor 1")
    return np.frombuffer(raw, kind) if raw else np.empty(0, kind)


class _EmptyArray:
    """What `_reconstruct` gives before its state says what it holds."""


def reconstruct(kind: object, shape: object, code: object) -> _EmptyArray:
    name = kind.name if isinstance(kind, Named) else None
    if name != "numpy.ndarray" or shape != (0,) or code not in (b"b", "b"):
        raise HostileObject("an array in it is of another class than numpy's")
    return _EmptyArray()


def array_state(_: object, state: object) -> np.ndarray[Any, Any]:
    found = state[1:] if isinstance(state, tuple) and len(state) == 5 and state[0] == 1 else (None,) * 4
    shape, kind, is_fortran, raw = found
    if not isinstance(kind, np.dtype) or not isinstance(raw, bytes) or type(is_fortran) not in (bool, int):
        raise HostileObject("an array in it holds something else than plain numbers")
    if not isinstance(shape, tuple) or len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array without a shape")
    if math.prod(shape) * kind.itemsize != len(raw) or any(n >= 1 << 40 for n in shape):
        raise ValueError("an array that does not agree with its shape")
    return _numbers(raw, kind).reshape(shape, order="F" if is_fortran else "C").copy("K")


def numpy_names(attribute: str) -> tuple[str, str]:
    """Both spellings: files written under numpy 1 and numpy 2."""
    return f"numpy.core.multiarray.{attribute}", f"numpy._core.multiarray.{attribute}"
