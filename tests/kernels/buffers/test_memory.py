"""Where tensors lie in memory, as the kernels are told it."""

from __future__ import annotations

import pytest
import torch

from binarize.errors import UsageError
from binarize.kernels.buffers.memory import aligned, check_readable, extent, keep_in_place, place


def test_an_extent_ends_where_the_storage_does() -> None:
    whole = torch.zeros(10, dtype=torch.int16)
    assert extent(whole) == (whole.data_ptr(), 20)
    assert extent(whole[3:5]) == (whole.data_ptr() + 6, 14)


def test_a_place_is_equal_as_long_as_the_same_numbers_are_read_in_the_same_way() -> None:
    one = torch.zeros(4, 4)
    before = place(one)
    one.add_(1)
    assert place(one) == before
    for other in (one.clone(), one[:2], one.t(), one.view(16), one.view(torch.int32)):
        assert place(other) != before
    one.data = torch.zeros(4, 4)
    assert place(one) != before
    assert place(None) is None


def test_a_tensor_without_memory_has_another_place_each_time() -> None:
    fake = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (2,))
    assert place(fake) != place(fake)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (None, "x is None"),
        ([1.0], "x is of type list"),
        (torch.zeros(2).to_sparse(), r"x is torch\.sparse_coo"),
        (torch.zeros(2, device="meta"), r"x is torch\.float32 \(2,\) on meta without memory"),
        (torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8), "x is quantized"),
    ],
)
def test_what_has_no_plain_numbers_is_refused(made: object, told: str) -> None:
    with pytest.raises(UsageError, match=f"{told}.*; expected a "):
        check_readable("x", made)


def test_no_numbers_need_no_memory() -> None:
    check_readable("x", torch.zeros(0, 3))


def test_a_tensor_that_begins_between_two_numbers_is_copied() -> None:
    odd = torch.frombuffer(bytearray(9), dtype=torch.uint8)[1:].view(torch.uint8)
    assert aligned(odd) is odd
    numbers = torch.zeros(2)
    assert aligned(numbers) is numbers


def test_memory_that_is_kept_cannot_be_resized() -> None:
    one = torch.zeros(4)
    kept = keep_in_place(one)
    assert kept.data_ptr() == one.data_ptr()
    with pytest.raises(RuntimeError, match="resize"):
        one.resize_(100)
