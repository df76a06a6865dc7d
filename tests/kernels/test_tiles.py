from __future__ import annotations

import pytest
import torch

from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight, Maxout
from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.binarizers.dorefa import LayerScaledSign
from binarize.binarizers.irnet import LibraWeight
from binarize.binarizers.reactnet import RSign
from binarize.kernels import tiles
from binarize.kernels.tiles import index_blocks, pieces


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tiles, "BLOCK", 50)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(7, 9, 4), (200, 3, 3), (1, 9, 30)])
def test_index_blocks_cover_every_element_once(shape, axis):
    seen = torch.zeros(shape)
    for at in index_blocks(seen, axis):
        seen[at] += 1
        assert seen[at].numel() <= max(50, seen.numel() // shape[axis])
    assert seen.eq(1).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pieces_are_views_of_the_same_places(memory_format):
    x = torch.arange(2 * 3 * 5 * 7.0).view(2, 3, 5, 7).contiguous(memory_format=memory_format)
    out = torch.zeros_like(x)
    parts = pieces(x, out)
    assert len(parts) == 5
    for x_i, out_i in parts:
        out_i.copy_(x_i)
    assert torch.equal(out, x)


def test_tensors_in_different_orders_stay_whole():
    x = torch.randn(2, 3, 5, 7)
    other = x.contiguous(memory_format=torch.channels_last)
    assert pieces(x, other) == [(x, other)]
    assert len(pieces(x[:, :, ::2], x[:, :, ::2])) == 1
    assert len(pieces(x[:1, :1], x[:1, :1])) == 1


@pytest.mark.parametrize(
    "module",
    [
        ApproxSign(),
        AdaptiveInput(),
        RSign(3),
        Maxout(3),
        AdaptiveWeight(),
        AdaptiveWeight(axis=1),
        ScaledSign(),
        ScaledSign(axis=1),
        LibraWeight(),
        LibraWeight(axis=1),
        LayerScaledSign(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_blocks_do_not_change_a_result(monkeypatch, module, memory_format):
    torch.manual_seed(0)
    x = torch.randn(8, 3, 5, 7, dtype=torch.float64)
    g = torch.randn_like(x)
    module.double()

    def run() -> list[torch.Tensor]:
        module.zero_grad()
        inner = x.detach().contiguous(memory_format=memory_format).requires_grad_()
        y = module(inner)
        y.backward(g)
        return [y.detach(), inner.grad, *(p.grad.clone() for p in module.parameters())]

    in_blocks = run()
    monkeypatch.setattr(tiles, "BLOCK", 1 << 30)
    for ours, theirs in zip(in_blocks, run(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
