from __future__ import annotations

import torch

from binarize.binarizers.xnorpp import ChannelScale


def test_scale_multiplies_its_channel_and_gathers_its_gradient():
    y = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    scale = ChannelScale(2)
    with torch.no_grad():
        scale.s.copy_(torch.tensor([2.0, -1.0]))
    out = scale(y)
    out.sum().backward()
    assert out.tolist() == [[[2, 4], [-3, -4]]]
    assert scale.s.grad.tolist() == [3, 7]


def test_channels_may_be_the_last_axis():
    scale = ChannelScale(2, channel_dim=-1, start=3.0)
    assert scale(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist() == [[[3, 6], [9, 12]]]
