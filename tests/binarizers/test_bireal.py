from __future__ import annotations

import pytest
import torch

from binarize.binarizers.bireal import ApproxSign, ScaledSign


@pytest.mark.parametrize("gradient", ["code", "paper"])
def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight, gradient):
    expected = vectors["w_bireal"]
    wb, dw = binarize_weight(ScaledSign(gradient=gradient))
    torch.testing.assert_close(wb, tensor(expected["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(expected[f"dW_{gradient}"]), rtol=0, atol=atol)


def test_inputs_equal_their_vectors(vectors, tensor, atol, binarize_input):
    y, dx = binarize_input(ApproxSign())
    torch.testing.assert_close(y, tensor(vectors["a_approx_sign"]["y"]), rtol=0, atol=0)
    torch.testing.assert_close(dx, tensor(vectors["a_approx_sign"]["dx"]), rtol=0, atol=atol)


def test_split_runs_the_convolution_on_pure_signs():
    torch.manual_seed(0)
    w = torch.randn(3, 2, 3, 3)
    values, scale = ScaledSign().split(w)
    assert set(values.unique().tolist()) == {-1, 1}
    torch.testing.assert_close(scale.flatten(), w.abs().mean((1, 2, 3)), rtol=1e-6, atol=0)
