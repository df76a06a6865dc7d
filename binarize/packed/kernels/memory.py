"""Where tensors lie in memory, as the kernels are told it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["NOTHING", "aligned", "extent", "keep_in_place"]

# The extent of a tensor that is not given.
NOTHING = (0, 0)


def extent(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins, and the bytes that can be read from there: a storage may be shorter than its tensors."""
    whole: Any = tensor.untyped_storage().nbytes()
    return tensor.data_ptr(), whole - tensor.storage_offset() * tensor.itemsize


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that begins between two numbers."""
    return tensor if tensor.data_ptr() % tensor.itemsize == 0 else tensor.clone()


def keep_in_place(tensor: Tensor) -> Tensor:
    """The tensor's memory, which stays as long as this is kept, and can no longer be resized."""
    memory = tensor.detach()
    memory.numpy()  # torch forbids to resize what numpy looks at
    return memory
