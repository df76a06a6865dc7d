from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.binarizers.bnn import SteSign


def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight):
    wb, dw = binarize_weight(SteSign())
    torch.testing.assert_close(wb, tensor(vectors["w_bnn"]["Wb"]), rtol=0, atol=0)
    torch.testing.assert_close(dw, tensor(vectors["w_bnn"]["dW_clip"]), rtol=0, atol=atol)


def test_inputs_equal_their_vectors(vectors, tensor, atol, binarize_input):
    y, dx = binarize_input(SteSign())
    torch.testing.assert_close(y, tensor(vectors["a_sign_clip"]["y"]), rtol=0, atol=0)
    torch.testing.assert_close(dx, tensor(vectors["a_sign_clip"]["dx"]), rtol=0, atol=atol)


def test_hardtanh_is_the_nonlinearity_of_the_vectors(vectors, tensor, atol, binarize_input):
    y, dx = binarize_input(nn.Hardtanh())
    torch.testing.assert_close(y, tensor(vectors["a_hardtanh"]["y"]), rtol=0, atol=atol)
    torch.testing.assert_close(dx, tensor(vectors["a_hardtanh"]["dx"]), rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("clip", [0.3, 1.0, 1.5, 2.0])
def test_gradient_reaches_up_to_the_boundary_and_stops_a_percent_beyond(dtype, clip):
    boundary = torch.tensor(clip, dtype=dtype)
    x = torch.stack([-1.01 * boundary, -boundary, boundary, 1.01 * boundary]).requires_grad_()
    SteSign(clip)(x).sum().backward()
    if clip in (1.0, 1.5, 2.0):  # 0.3 is no binary fraction, so a type may round it to beyond the interval
        assert x.grad.tolist() == [0, 1, 1, 0]
    assert x.grad[[0, 3]].tolist() == [0, 0]
