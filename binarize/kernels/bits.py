"""Bits in memory: the canonical stream of a weight and the words of an activation.

Convention, here and everywhere: bit 0 is the upper value (+1), bit 1 the lower (-1), so

    dot(a, w) = K - 2 * popcount(a xor w)        for K values each

The canonical stream has one row per filter. The filter's weights are taken in torch's order (in, kh, kw), the
first weight is bit 0 of byte 0, the row ends on a byte, and the bits that fill it up are 0:

    filter of 9 weights  + - - + + + - + | +           row: 0b01000110 0b00000000

It does not depend on the processor; it is what files hold. Activations are packed along the channels instead:
32 channels a word, channel 0 in bit 0, pixels in rows (N, H, W, words), the rest of the last word 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from binarize.errors import CheckError

__all__ = [
    "WORD",
    "lower_of",
    "pack_bits",
    "pack_words",
    "signs",
    "stream_bytes",
    "unpack_bits",
    "unpack_words",
]

WORD = 32
"""Bits of one word of activations."""


def stream_bytes(shape: Sequence[int]) -> int:
    """Bytes that the canonical stream of a weight of this shape takes."""
    return shape[0] * -(-math.prod(shape[1:]) // 8)


def pack_bits(lower: Tensor) -> Tensor:
    """The canonical stream of a weight, from a mask that is True where it has its lower value.

    Shapes: bool (O, ...) -> uint8 (O, ceil(n / 8)).

    Example:
        >>> pack_bits(torch.tensor([[1.0, -1.0, -1.0]]) < 0)
        tensor([[6]], dtype=torch.uint8)
    """
    return _to_bytes(lower.flatten(1), multiple=8)


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The mask that `pack_bits` packed: True where the weight has its lower value.

    Shapes: uint8 (O, ceil(n / 8)) -> bool `shape`.
    Raises: CheckError if the stream does not have the length that the shape needs, or a filling bit is set.
    """
    n = math.prod(shape[1:])
    if bits.dtype != torch.uint8 or tuple(bits.shape) != (shape[0], -(-n // 8)):
        raise CheckError(
            f"packed bits are {bits.dtype} {tuple(bits.shape)}; a weight of {tuple(shape)} needs "
            f"torch.uint8 {(shape[0], -(-n // 8))}"
        )
    if n % 8 and bool((bits[:, -1] >> (n % 8)).any()):
        raise CheckError(f"packed bits of a weight of {tuple(shape)}: a filling bit after bit {n - 1} is set")
    return lower_of(bits, shape)


def lower_of(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """`unpack_bits` of a stream that was checked before: asks for no number of the tensor, so that it can be traced.

    Shapes: (O, bytes) -> as unpacked.
    """
    return _to_mask(bits)[:, : math.prod(shape[1:])].reshape(tuple(shape))


def pack_words(lower: Tensor) -> Tensor:
    """Words of the last dimension of a mask.

    Shapes: bool (..., C) -> int32 (..., ceil(C / 32)).
    """
    packed = _to_bytes(lower, multiple=WORD).contiguous()
    return packed.view(torch.int32)


def unpack_words(words: Tensor, channels: int) -> Tensor:
    """The mask that `pack_words` packed.

    Shapes: int32 (..., ceil(C / 32)) -> bool (..., C).
    """
    return _to_mask(words.contiguous().view(torch.uint8))[..., :channels]


def signs(lower: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """-1 where the mask is True, else +1. Shapes: bool, any -> the same, in `dtype`."""
    return 1 - 2 * lower.to(dtype)


def _to_bytes(lower: Tensor, multiple: int) -> Tensor:
    filled = torch.nn.functional.pad(lower.to(torch.uint8), (0, -lower.shape[-1] % multiple))
    weights = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8, device=lower.device)
    return (filled.unflatten(-1, (-1, 8)) * weights).sum(-1, dtype=torch.uint8)


def _to_mask(packed: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & 1).flatten(-2).to(torch.bool)
