"""What is made of a tensor, kept as long as the tensor lives unchanged."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from binarize.kernels.buffers.digest import digest_of

__all__ = ["kept"]

_layouts: dict[int, tuple[weakref.ref[Tensor], object, Any]] = {}
_T = TypeVar("_T")


def kept(tensor: Tensor, key: object, make: Callable[[], _T], *, ours: bool = False) -> _T:
    """What `make` makes of a tensor under a key; made on first use, and again when the tensor holds something else.

    A tensor that is `ours` is known to nobody who could write to it.
    """
    whole_key = (key, None if ours else (tensor.shape, tensor.dtype, tensor.is_neg(), digest_of(tensor)))
    name = id(tensor)
    known = _layouts.get(name)
    if known is None or known[0]() is not tensor or known[1] != whole_key:
        # Bound here: when the interpreter ends, tensors outlive this module's names.
        forget = weakref.ref(tensor, functools.partial(_forget, _layouts, name))
        known = _layouts[name] = (forget, whole_key, make())
    found: _T = known[2]
    return found


def _forget(layouts: dict[int, Any], name: int, _: object) -> None:
    layouts.pop(name, None)
