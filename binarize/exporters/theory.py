"""What a packed model's numbers take at least: what the size of an exported file is measured against."""

from __future__ import annotations

from torch import nn

from binarize.packed.layers import PackedLayer

__all__ = ["constants_in_theory"]


def constants_in_theory(model: nn.Module) -> int:
    """Bytes at one bit a binary weight and four a number."""
    packed = [m for m in model.modules() if isinstance(m, PackedLayer)]
    inside = {id(buffer) for layer in packed for buffer in layer.buffers(recurse=False)}
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside}
    rest = sum(4 * t.numel() for t in tensors.values() if t.is_floating_point())
    return rest + sum(layer.packed_bytes() for layer in packed)
