"""A graph from a file is run once on shapes alone, before it is run on numbers: what would it take of memory?

A few bytes can ask for any amount of it. What the steps of a graph give, all of them together, is bounded by a multiple
of what the file and its recorded input hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from binarize.errors import BinarizeError, UsageError

__all__ = ["FOREIGN", "check_memory"]

# What torch and Python raise where an operator does not take its arguments.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
# All results of one forward pass: of the bytes of the file and the input, and beside that.
_TIMES, _BESIDE = 1024, 1 << 30


class TooLarge(UsageError):
    """The steps of a graph would take more memory than the file explains."""


class _Counting(FakeTensorMode):
    """Computes shapes, and counts the bytes that would be written."""

    def __init__(self, most: int) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.most, self.bytes = most, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs or {})
        if not getattr(func, "is_view", False):
            self.bytes += sum(
                leaf.numel() * leaf.itemsize
                for leaf in pytree.tree_leaves(result)
                if isinstance(leaf, Tensor) and isinstance(leaf.numel(), int)
            )
        if func is torch.ops.aten.convolution.default:
            self.bytes += _padded_bytes(args[0], args[4])
        if self.bytes > self.most:
            raise TooLarge(
                f"graph: {func} brings its results to {self.bytes:,} bytes on the recorded input; at most "
                f"{self.most:,} are expected of such a file"
            )
        return result


def _padded_bytes(x: Tensor, padding: Sequence[int]) -> int:
    """Of the image with its padding, which torch makes inside: a long step gives a small result of a large one."""
    sides = (size + 2 * pad for size, pad in zip(x.shape[2:], padding))
    return x.itemsize * math.prod((*x.shape[:2], *sides))


def check_memory(model: nn.Module, shapes: Sequence[Sequence[int]], held: int) -> None:
    """Run a model of a file on inputs of these shapes, without numbers; `held` is what the file holds, in bytes.

    The file does not say of which type its inputs are. Where they are of none that is tried, nothing is found out here:
    the model then says in its own forward what is wrong.

    Raises: UsageError, where its results would take more than `1024 x (file + input) + 1 GiB` bytes.
    """
    floats = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    for dtype in (floats, torch.int64):
        given = sum(dtype.itemsize * torch.Size(shape).numel() for shape in shapes)
        counting = _Counting(_TIMES * (held + given) + _BESIDE)
        try:
            with torch.no_grad(), counting:
                model(*(torch.empty(tuple(shape), dtype=dtype) for shape in shapes))
        except TooLarge:
            raise
        except (BinarizeError, *FOREIGN):
            continue
        return
