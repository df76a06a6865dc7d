"""Where tensors lie in memory, as the kernels are told it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from binarize.errors import UsageError

__all__ = ["NOTHING", "aligned", "check_readable", "extent", "keep_in_place", "place", "span"]

# The extent of a tensor that is not given.
NOTHING = (0, 0)


def extent(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins, and the bytes that can be read from there: a storage may be shorter than its tensors."""
    whole = tensor.untyped_storage().nbytes()
    return tensor.data_ptr(), int(whole - tensor.storage_offset() * tensor.itemsize)


def place(tensor: Tensor | None) -> object:
    """Where a tensor's numbers lie, and how: equal as long as they are the same ones in memory.

    `tensor.data = ...` and shared memory move what stays the same object; `resize_`, `t_` and `as_strided_` read the
    same memory in another way, a negated view with other signs.
    """
    if tensor is None:
        return None
    try:
        laid_out = tensor.is_contiguous() or tensor.stride()
        return tensor.data_ptr(), tensor.shape, laid_out, tensor.dtype, tensor.is_neg()
    except (AttributeError, RuntimeError):
        return object()  # no memory of its own: it is looked at anew each time, and refused


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many numbers lie from a tensor's first one to its last one, with what is between them."""
    if 0 in shape:
        return 0
    return sum((size - 1) * stride for size, stride in zip(shape, strides)) + 1


def check_readable(name: str, tensor: object) -> None:
    """Raises: UsageError, where this is no tensor with plain numbers in memory: a sparse, nested, fake one, or None."""
    if not isinstance(tensor, Tensor):
        raise UsageError(f"{name} is {_told(tensor)}; expected a dense tensor")
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        told = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else tensor.layout
        raise UsageError(f"{name} is {told}; expected a dense tensor")
    if tensor.nbytes and not _address(tensor):
        raise UsageError(
            f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device} without memory behind it; expected "
            "a tensor with numbers"
        )


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0  # one that only stands for a shape


def _told(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that begins between two numbers."""
    return tensor if tensor.data_ptr() % tensor.itemsize == 0 else tensor.clone()


def keep_in_place(tensor: Tensor) -> Tensor:
    """The tensor's memory, which stays as long as this is kept, and can no longer be resized."""
    memory = tensor.detach()
    memory.numpy()  # torch forbids to resize what numpy looks at
    return memory
