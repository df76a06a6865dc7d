from __future__ import annotations

import pytest
import torch

from binarize.layers.pointwise import pointwise_backward

torch.set_num_threads(1)
# Planes of less and of more than 64 pixels, one pixel, one sample, one channel.
SHAPES = [(3, 5, 4, 4), (2, 3, 9, 8), (4, 7, 1, 1), (1, 6, 5, 5), (2, 1, 3, 3), (3, 4, 10), (2, 4, 3, 5, 6)]


def operands(shape, filters=6):
    torch.manual_seed(0)
    a = torch.randn(shape)
    w = torch.randn(filters, shape[1], *[1] * (len(shape) - 2))
    return torch.randn(shape[0], filters, *shape[2:]), a, w


def convolution_backward(g, a, w):
    axes = w.dim() - 2
    geometry = [1] * axes, [0] * axes, [1] * axes, False, [0] * axes, 1
    exact = [t.double() for t in (g, a, w)]
    return torch.ops.aten.convolution_backward(*exact, None, *geometry, [True, True, False])[:2]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("strange", [False, True], ids=["alike", "g lies otherwise"])
def test_gradients_are_those_of_the_convolution(shape, channels_last, strange):
    g, a, w = operands(shape)
    if channels_last and a.dim() == 4:
        a = a.contiguous(memory_format=torch.channels_last)
    if channels_last != strange and g.dim() == 4:
        g = g.contiguous(memory_format=torch.channels_last)
    found = pointwise_backward(g, a, w, (True, True))
    for ours, theirs, like in zip(found, convolution_backward(g, a, w), (a, w)):
        assert ours.shape == like.shape
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    assert not channels_last or a.dim() != 4 or found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last], ids=["planes", "pixels"])
def test_only_what_is_needed_is_computed(shape, needs, format):
    g, a, w = operands(shape)
    both = pointwise_backward(g, a.contiguous(memory_format=format), w, (True, True))
    found = pointwise_backward(g, a.contiguous(memory_format=format), w, needs)
    for one, needed, expected in zip(found, needs, both):
        assert torch.equal(one, expected) if needed else one is None


def test_images_with_gaps_in_memory_are_left_to_torch():
    g, a, w = operands((2, 3, 4, 4))
    assert pointwise_backward(g, a.expand(2, 3, 4, 4)[:, :, ::2, ::2], w, (True, True)) is None
