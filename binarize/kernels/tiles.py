"""Elementwise work a block at a time, so that the passes of a formula after the first find their numbers in the cache.

On a CPU a formula of ten operations over a large tensor reads and writes memory ten times. Block by block it does so
once, and its intermediate results are as small as a block. Other devices and compiled graphs get one block: all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["BLOCK", "index_blocks", "pieces"]

# Elements per block: 512 KiB of float32, several of which fit a second-level cache.
BLOCK = 1 << 17


def pieces(*tensors: Tensor) -> Sequence[tuple[Tensor, ...]]:
    """Views of tensors of one shape, block by block in the order of memory; the tensors as they are where that fails.

    It fails where the tensors lie in memory in different orders or with gaps.
    """
    first = tensors[0]
    if not _worthwhile(first):
        return [tensors]
    strides = first.stride()
    dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
    if not dense or any(t.stride() != strides for t in tensors):
        return [tensors]
    flat = [t.as_strided((t.numel(),), (1,)).split(BLOCK) for t in tensors]
    return list(zip(*flat, strict=True))


def index_blocks(x: Tensor, axis: int = 0) -> list[tuple[slice, ...]]:
    """Indices that take x some slices of one axis at a time: filters of a weight, samples of a batch."""
    axis %= x.dim()
    before = (slice(None),) * axis
    if not _worthwhile(x):
        return [(*before, slice(None))]
    step = max(BLOCK * x.shape[axis] // x.numel(), 1)
    return [(*before, slice(start, start + step)) for start in range(0, x.shape[axis], step)]


def _worthwhile(x: Tensor) -> bool:
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not traced and x.device.type == "cpu" and x.numel() > BLOCK
