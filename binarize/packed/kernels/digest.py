"""One number for what tensors hold. Torch's own counter of writes misses numpy views, `.data` and inference mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from binarize.errors import UsageError
from binarize.packed.kernels import native
from binarize.packed.kernels.memory import check_readable

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
        size, storage = _span(tensor), tensor.untyped_storage()
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
    """What gives `digest_of` these tensors, as long as they lie where they do now; a third of its time for a single one.

    Raises when it is called: UsageError, where a storage was made shorter since.
    """
    in_c = getattr(native(), "digest", None)
    if in_c is None or len(tensors) != 1 or not tensors[0].is_contiguous() or not tensors[0].nbytes:
        return partial(digest_of, *tensors)
    (tensor,) = tensors
    offset, size = tensor.storage_offset() * tensor.itemsize, tensor.nbytes

    def now() -> int:
        storage: Any = tensor.untyped_storage()
        there = storage.nbytes() - offset
        found: int = in_c(storage.data_ptr() + offset, there, size) if there >= size else digest_of(tensor)
        return found

    return now


def _span(tensor: Tensor) -> int:
    """Bytes from a tensor's first number to its last one, with what lies between them."""
    if tensor.is_contiguous() or not tensor.numel():
        return tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return (last + 1) * tensor.itemsize
