"""One number for what tensors hold, read from their memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels.buffers.memory import check_readable, span
from binarize.kernels.variants import native

__all__ = ["digest_of", "watched"]


def digest_of(*tensors: Tensor | None) -> int:
    """A number that is another one when a byte of these tensors on a CPU is, or their sizes.

    It is read from memory at every call: 64 bits, some 15 GB a second.

    Raises: UsageError, where a tensor has no memory, or its storage was made shorter.
    """
    in_c = getattr(native(), "digest", None)
    pieces: list[Any] = []
    read: list[object] = []  # memory lives until it was read
    odd: list[object] = []
    for tensor in tensors:
        if tensor is None:
            pieces += (0, 0, 0)
            continue
        check_readable("a buffer", tensor)
        if not tensor.is_contiguous():
            odd.append((tensor.shape, tensor.stride()))
        storage = tensor.untyped_storage()
        size = span(tensor.shape, tensor.stride()) * tensor.itemsize
        read.append(storage)
        offset = tensor.storage_offset() * tensor.itemsize
        there = storage.nbytes() - offset
        if there < size:
            raise UsageError(
                f"a buffer {tuple(tensor.shape)} has {max(there, 0):,} bytes of storage; expected {size:,}: its "
                "storage was resized"
            )
        pieces += (storage.data_ptr() + offset, there, size) if size else (0, 0, 0)
    if in_c is not None:
        found: int = in_c(*pieces)
        return hash((found, *odd)) if odd else found
    return hash(
        tuple(None if one is None else one.detach().contiguous().numpy().tobytes() for one in tensors)
    )


def watched(*tensors: Tensor) -> Callable[[], int]:
    """What gives one number for these tensors, another one when a byte of them is; faster than `digest_of` at each call.

    It stands for them as long as they lie where they do now. Raises when it is called: UsageError, where a storage was
    made shorter since.
    """
    in_c = getattr(native(), "digest", None)
    if in_c is None or not all(tensor.is_contiguous() and tensor.nbytes for tensor in tensors):
        return partial(digest_of, *tensors)
    known = [(one, int(one.storage_offset()) * one.itemsize, one.nbytes) for one in tensors]
    if len(known) == 1:
        return partial(_now, in_c, *known[0])

    def now() -> int:
        pieces: list[Any] = []
        read: list[object] = []  # memory lives until it was read
        for tensor, offset, size in known:
            storage = tensor.untyped_storage()
            read.append(storage)
            there = storage.nbytes() - offset
            if there < size:
                return digest_of(*tensors)
            pieces += storage.data_ptr() + offset, there, size
        found: int = in_c(*pieces)
        return found

    return now


def _now(in_c: Callable[..., int], tensor: Tensor, offset: int, size: int) -> int:
    storage = tensor.untyped_storage()
    there = storage.nbytes() - offset
    return in_c(storage.data_ptr() + offset, there, size) if there >= size else digest_of(tensor)
