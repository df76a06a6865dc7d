"""One number for what tensors hold. Torch's own counter of writes misses numpy views, `.data` and inference mode."""

from __future__ import annotations

from torch import Tensor

from binarize.errors import UsageError
from binarize.packed.kernels import native

__all__ = ["digest_of"]


def digest_of(*tensors: Tensor | None) -> int:
    """A number that is another one when a byte of these tensors on a CPU is, or their sizes.

    It is read from memory at every call: 64 bits, some 15 GB a second.

    Raises: UsageError, where a storage was made shorter than its tensor.
    """
    in_c = getattr(native(), "digest", None)
    pieces: list[int] = []
    whole: list[Tensor] = []  # copies live until they were read
    for tensor in tensors:
        if tensor is None:
            pieces += (0, 0)
            continue
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
            whole.append(tensor)
        size = tensor.nbytes
        there = tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.itemsize
        if there < size:
            raise UsageError(
                f"a buffer {tuple(tensor.shape)} has {max(there, 0):,} bytes of storage; expected {size:,}: its "
                "storage was resized"
            )
        pieces += (tensor.data_ptr(), size) if size else (0, 0)
    if in_c is not None:
        found: int = in_c(*pieces)
        return found
    return hash(
        tuple(None if one is None else one.detach().contiguous().numpy().tobytes() for one in tensors)
    )
