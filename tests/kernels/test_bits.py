"""Packing laws: what goes in comes out, the order is the documented one, filling bits are 0."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from binarize.errors import CheckError
from binarize.kernels.bits import pack_bits, pack_words, signs, stream_bytes, unpack_bits, unpack_words


def random_mask(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) < 0.5


def test_first_weight_is_bit_0_of_byte_0_and_minus_is_1() -> None:
    w = torch.tensor([[1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0]])
    assert pack_bits(w < 0).tolist() == [[0b01000110, 0b00000001]]


def test_stream_takes_weights_in_torch_order() -> None:
    w = torch.ones(1, 2, 2, 2)
    w[0, 1, 0, 1] = -1  # position 4 * 1 + 2 * 0 + 1
    assert pack_bits(w < 0).tolist() == [[1 << 5]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 4), st.integers(1, 4))
def test_unpack_gives_back_what_was_packed(o: int, i: int, kh: int, kw: int) -> None:
    mask = random_mask(o, i, kh, kw)
    bits = pack_bits(mask)
    assert bits.numel() == stream_bytes(mask.shape)
    assert torch.equal(unpack_bits(bits, mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1030))
def test_words_round_trip_and_fill_with_zero(channels: int) -> None:
    mask = random_mask(2, 3, channels)
    words = pack_words(mask)
    assert words.shape == (2, 3, -(-channels // 32))
    assert torch.equal(unpack_words(words, channels), mask)
    assert not unpack_words(words, words.shape[-1] * 32)[..., channels:].any()


def test_channel_c_is_bit_c_of_its_word() -> None:
    mask = torch.zeros(1, 40, dtype=torch.bool)
    mask[0, [0, 3, 31, 33]] = True
    assert [word & 0xFFFFFFFF for word in pack_words(mask)[0].tolist()] == [1 | 1 << 3 | 1 << 31, 1 << 1]


def test_signs_of_bits_are_plus_one_for_0_and_minus_one_for_1() -> None:
    assert signs(torch.tensor([False, True])).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("bits", [torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2, 2)])
def test_wrong_stream_is_refused_with_the_shape_it_needs(bits: torch.Tensor) -> None:
    with pytest.raises(CheckError, match=r"needs torch.uint8 \(2, 2\)"):
        unpack_bits(bits, (2, 1, 3, 3))


def test_set_filling_bit_is_refused() -> None:
    with pytest.raises(CheckError, match="filling bit after bit 2"):
        unpack_bits(torch.tensor([[8]], dtype=torch.uint8), (1, 3))
