from __future__ import annotations

import pytest
import torch

from binarize.binarizers.irnet import Ede, LibraWeight


def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight, with_values):
    expected = vectors["w_irnet"]
    wb, dw = binarize_weight(LibraWeight(with_values(Ede(), t=expected["t"], k=expected["k"])))
    torch.testing.assert_close(wb, tensor(expected["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(expected["dW"]), rtol=0, atol=atol)


def test_scale_is_a_power_of_two_near_the_mean_magnitude():
    torch.manual_seed(0)
    w = torch.randn(64, 4, 3, 3) ** 3
    _, scale = LibraWeight().split(w)
    u = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
    exponent = scale.log2()
    assert torch.equal(exponent, exponent.round())
    assert len(exponent.unique()) > 1
    ratio = u.abs().mean((1, 2, 3), keepdim=True) / scale
    assert ratio.min() >= 2**-0.5 - 1e-6
    assert ratio.max() <= 2**0.5 + 1e-6


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 3, 3, 3)])
def test_a_filter_without_spread_gets_the_gradient_of_a_deviation_of_one(shape):
    w = torch.full(shape, 0.25, requires_grad=True)
    g = torch.arange(w.numel(), dtype=torch.float32).view(shape)
    values, _ = LibraWeight().split(w)
    values.backward(g)
    centred = g - g.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(w.grad, centred, rtol=0, atol=1e-5)
