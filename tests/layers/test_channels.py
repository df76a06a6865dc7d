from __future__ import annotations

import pytest
import torch

from binarize.layers.shortcuts import MeanChannels, RepeatChannels

torch.set_num_threads(1)


@pytest.mark.parametrize(("shape", "dim"), [((2, 6, 3, 3), 1), ((2, 5, 6), -1)])
def test_mean_undoes_repeat(shape, dim):
    torch.manual_seed(0)
    x = torch.randn(shape)
    there, back = RepeatChannels(4, dim), MeanChannels(4, dim)
    assert torch.equal(there(x), torch.cat([x] * 4, dim))
    torch.testing.assert_close(back(there(x)), x, rtol=0, atol=1e-6)


def test_mean_takes_channels_that_are_as_far_apart_as_there_are_outputs():
    x = torch.tensor([[1.0, 2.0, 30.0, 40.0, 500.0, 600.0]])
    assert MeanChannels(3, -1)(x).tolist() == [[177.0, 214.0]]
