from __future__ import annotations

import torch

from binarize.binarizers.dorefa import LayerScaledSign, ZeroOne


def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight):
    wb, dw = binarize_weight(LayerScaledSign())
    torch.testing.assert_close(wb, tensor(vectors["w_dorefa"]["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(vectors["w_dorefa"]["dW"]), rtol=0, atol=atol)


def test_all_filters_share_one_scale():
    _, scale = LayerScaledSign().split(torch.tensor([[1.0, -2.0], [3.0, 6.0]]))
    assert scale.shape == ()
    assert scale.item() == 3


def test_inputs_equal_their_vectors(vectors, tensor, atol, binarize_input):
    y, dx = binarize_input(ZeroOne())
    torch.testing.assert_close(y, tensor(vectors["a_dorefa"]["y"]), rtol=0, atol=0)
    torch.testing.assert_close(dx, tensor(vectors["a_dorefa"]["dx"]), rtol=0, atol=atol)


def test_inputs_equal_the_estimator_vectors(vectors, tensor):
    table = vectors["estimators"]
    x = tensor(table["x"]).requires_grad_()
    y = ZeroOne()(x)
    y.sum().backward()
    torch.testing.assert_close(y, tensor(table["dorefa_act_forward"]), rtol=0, atol=0)
    torch.testing.assert_close(x.grad, tensor(table["dorefa_act"]), rtol=0, atol=0)


def test_a_half_is_one_and_the_number_below_it_zero():
    x = torch.tensor([0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)).item()])
    assert ZeroOne()(x).tolist() == [1, 0]


def test_a_layer_of_one_filter_has_its_gradient():
    w = torch.tensor([[0.5, -0.25]], requires_grad=True)
    LayerScaledSign()(w).backward(torch.tensor([[1.0, 2.0]]))
    assert w.grad is not None and w.grad.tolist() == [[1, 2]]
