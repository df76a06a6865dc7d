from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.binarizers.xnor import MappedSign, ScaledSign
from binarize.errors import UsageError


@pytest.mark.parametrize(
    ("scale_grad", "key"),
    [("detached", "dW_scale_detached_ste"), ("paper", "dW_paper"), ("exact", "dW_exact")],
)
def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight, scale_grad, key):
    wb, dw = binarize_weight(ScaledSign(scale_grad=scale_grad))
    torch.testing.assert_close(wb, tensor(vectors["w_xnor"]["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(vectors["w_xnor"][key]), rtol=0, atol=atol)


@pytest.mark.parametrize("axis", [0, 1])
def test_centring_takes_the_mean_over_the_input_channels(axis):
    torch.manual_seed(0)
    w = torch.randn(4, 6, 3, 3)
    inputs = 1 - axis
    centred = ScaledSign(centre=True, axis=axis)(w)
    assert torch.equal(centred, ScaledSign(axis=axis)(w - w.mean(inputs, keepdim=True)))


def test_centring_leaves_a_single_input_channel_alone():
    w = torch.tensor([[[[1.0, -2.0]]]])
    assert torch.equal(ScaledSign(centre=True)(w), ScaledSign()(w))


def test_scale_map_equals_its_vectors(vectors, tensor, atol):
    expected = vectors["conv_xnor"]
    conv = nn.Conv2d(2, 2, 2, padding=expected["pad"])
    k = MappedSign().scale_map(tensor(expected["X"]), conv)
    torch.testing.assert_close(k, tensor(expected["K"]), rtol=0, atol=atol)


def test_scale_map_of_a_linear_layer_is_the_mean_magnitude_of_its_inputs():
    x = torch.tensor([[1.0, -3.0], [0.0, 0.5]])
    assert MappedSign().scale_map(x, nn.Linear(2, 5)).tolist() == [[2.0], [0.25]]


def test_scale_map_refuses_a_transposed_convolution():
    with pytest.raises(UsageError, match="no scale map for ConvTranspose2d"):
        MappedSign().scale_map(torch.zeros(1, 2, 3, 3), nn.ConvTranspose2d(2, 2, 3))
