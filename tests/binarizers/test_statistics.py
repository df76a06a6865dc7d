from __future__ import annotations

import pytest
import torch

from binarize.binarizers.statistics import channel_mean, filter_size, mean_abs, mean_and_variance, per_channel


@pytest.mark.parametrize(("axis", "others"), [(0, (1, 2)), (1, (0, 2))])
def test_a_filter_is_all_that_gives_one_output_channel(axis, others):
    torch.manual_seed(0)
    w = torch.randn(4, 5, 3)
    mean, variance = mean_and_variance(w, axis, correction=1)
    torch.testing.assert_close(mean, w.mean(others, keepdim=True), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(variance, w.var(others, keepdim=True), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(mean_abs(w, axis), w.abs().mean(others, keepdim=True), rtol=1e-6, atol=1e-7)
    assert filter_size(w, axis) == w.numel() // w.shape[axis]


@pytest.mark.parametrize("correction", [0, 1])
def test_one_weight_alone_has_variance_zero(correction):
    _, variance = mean_and_variance(torch.tensor([[3.0], [-2.0]]), 0, correction)
    assert variance.flatten().tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dividing_by_a_mean_magnitude_never_overflows(dtype):
    size = mean_abs(torch.zeros(1, 4, dtype=dtype), 0)
    assert size.item() > 0
    assert torch.isfinite(1 / size).all()


def test_half_statistics_are_accumulated_in_float32():
    # The sum of 4096 ones and the squares of 1e4 leave float16.
    w = torch.full((1, 4096), 1e4, dtype=torch.float16)
    mean, variance = mean_and_variance(w, 0, correction=0)
    assert (mean.item(), variance.item()) == (10000, 0)
    assert channel_mean(w.view(1, 1, -1), 1).tolist() == [10000]


def test_per_channel_stands_on_its_axis():
    numbers = torch.tensor([1.0, 2.0])
    assert per_channel(numbers, torch.zeros(3, 2, 4, 4), 1).shape == (1, 2, 1, 1)
    assert per_channel(numbers, torch.zeros(3, 4, 2), -1).shape == (1, 1, 2)
