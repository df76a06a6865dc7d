"""Weights as the kernels want them, made at load time from the canonical stream.

Filters are taken in blocks of `lanes`; the last block is filled up. With `span` words of a pixel read for each tap,
a filter has kh * kw * span words, ordered (ky, kx, word):

    lanes    [block][word][lane]              one vector holds the same word of neighbouring filters
    nibbles  [block][word][byte][lane]        bytes instead of words, to index a table with
    rows     [block][lane][word]              each filter in one piece
    masked   [block][word][weights, mask][lane]

`masked` serves groups that do not fill whole words: a block then holds filters of several groups, all reading the
words that cover their channels, and the mask keeps of each word what belongs to the lane's own group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels.bits import WORD, pack_words, signs, unpack_bits
from binarize.kernels.geometry import Geometry
from binarize.kernels.variants import Variant

__all__ = ["KernelWeight", "check_layout", "make_layout"]

# Bytes of a layout beyond what the weight's own bits take: filters that fill up a block, channels that fill up a word.
_MOST_FILLING = 1 << 28


@dataclass(frozen=True)
class KernelWeight:
    """A weight in one variant's layout. `padded` is the number of filters in whole blocks."""

    data: Tensor
    masked: bool
    starts: Tensor
    """int32 (blocks,): the first word of a pixel that each block reads."""
    span: int
    corner_sums: Tensor
    """int32 (kh + 1, kw + 1, padded): sum of the signs of the taps above and left of a corner of the window."""


def check_layout(geometry: Geometry, padded: int, span: int, words_each: int = 1) -> None:
    """Raises: UsageError, where the layout of a weight would be far larger than the weight."""
    kh, kw = geometry.kernel
    size = 4 * padded * (geometry.taps * span * words_each + (kh + 1) * (kw + 1))
    if size > _MOST_FILLING + geometry.out_channels * geometry.filter_size // 4:
        raise UsageError(
            f"{geometry}: the kernels would need {size / (1 << 30):.1f} GiB for the layout of this weight, nearly all of "
            "it filling; BINARIZE_KERNELS=reference computes such a layer in plain torch"
        )


def make_layout(bits: Tensor, geometry: Geometry, variant: Variant) -> KernelWeight:
    """Lays a canonical stream out for one variant.

    Shapes: uint8 (O, ceil(K / 8)).
    """
    aligned = geometry.group_in % WORD == 0 and geometry.group_out % variant.lanes == 0
    masked = geometry.groups > 1 and not aligned
    lanes = variant.masked_lanes if masked else variant.lanes
    padded = -(-geometry.out_channels // lanes) * lanes
    starts, span = _block_words(geometry, lanes, padded // lanes)
    check_layout(geometry, padded, span, 2 if masked else 1)
    lower = unpack_bits(bits, geometry.weight_shape)
    if masked:
        data = _masked(lower, geometry, lanes, starts, span)
    else:
        words = pack_words(_fill(lower.permute(0, 2, 3, 1), padded)).view(padded // lanes, lanes, -1)
        data = _ordered(words, variant.layout)
    return KernelWeight(data.contiguous(), masked, starts, span, _corner_sums(lower, padded))


def _block_words(geometry: Geometry, lanes: int, blocks: int) -> tuple[Tensor, int]:
    """The words of a pixel that cover the input channels of each block: where they start, and how many at most."""
    total = -(-geometry.in_channels // WORD)
    first, last = [], []
    for block in range(blocks):
        first_group = block * lanes // geometry.group_out
        last_group = min((block + 1) * lanes, geometry.out_channels) - 1
        first.append(first_group * geometry.group_in // WORD)
        last.append(-(-(last_group // geometry.group_out + 1) * geometry.group_in // WORD))
    span = max(end - start for start, end in zip(first, last))
    return torch.tensor([min(start, total - span) for start in first], dtype=torch.int32), span


def _ordered(words: Tensor, layout: str) -> Tensor:
    """(blocks, lanes, words) in the order of an unmasked layout."""
    if layout == "rows":
        return words
    if layout == "lanes":
        return words.transpose(1, 2)
    if layout == "nibbles":
        return words.contiguous().view(torch.uint8).transpose(1, 2)
    raise AssertionError(f"unknown layout {layout!r}")


def _masked(lower: Tensor, geometry: Geometry, lanes: int, starts: Tensor, span: int) -> Tensor:
    """Each filter's bits at its own group's channels among the words of its block, and the mask of these."""
    o = torch.arange(geometry.out_channels)
    offset = (o // geometry.group_out) * geometry.group_in - WORD * starts[o // lanes]
    channel = offset[:, None] + torch.arange(geometry.group_in)
    wide = torch.zeros(2, geometry.out_channels, geometry.taps, span * WORD, dtype=torch.bool)
    index = channel[:, None, :].expand(-1, geometry.taps, -1)
    wide[0].scatter_(2, index, lower.flatten(2).transpose(1, 2))
    wide[1].scatter_(2, index, torch.ones_like(index, dtype=torch.bool))
    blocks = starts.numel()
    words = [pack_words(_fill(part, blocks * lanes)).view(blocks, lanes, -1) for part in wide]
    return torch.stack(words, dim=2).permute(0, 3, 2, 1)


def _corner_sums(lower: Tensor, padded: int) -> Tensor:
    taps = signs(lower, torch.int32).sum(1, dtype=torch.int32).permute(1, 2, 0)
    sums = taps.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    return torch.nn.functional.pad(sums, (0, padded - lower.shape[0], 1, 0, 1, 0)).contiguous()


def _fill(filters: Tensor, padded: int) -> Tensor:
    """Filters of 0 bits up to whole blocks."""
    missing = filters.new_zeros(padded - filters.shape[0], *filters.shape[1:])
    return torch.cat([filters, missing])
