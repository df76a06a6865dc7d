"""Elastic, sparse, residual, instance-aware and gated inputs and the nonlinearities beside them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.binarizers.abbnn import QuantizedRPReLU, SigmoidSign
from binarize.binarizers.bit import ElasticSign, ElasticStep
from binarize.binarizers.insta import InstanceSign
from binarize.binarizers.pokebnn import DPReLU
from binarize.binarizers.reactnet import RPReLU, RSign
from binarize.binarizers.realtobinary import GatedSign
from binarize.binarizers.reste import PowerSign
from binarize.binarizers.sibnn import SparseInput
from binarize.binarizers.tang import ResidualSign


@pytest.mark.parametrize("key, part", [("a_bit_signed", ElasticSign), ("a_bit_unsigned", ElasticStep)])
def test_elastic_inputs_equal_their_vectors(vectors, tensor, atol, with_values, key, part):
    expected = vectors[key]
    module = with_values(part(1), alpha=expected["alpha"])
    x = tensor(expected["x"]).view(5, 1).requires_grad_()
    y = module(x)
    y.backward(tensor(expected["upstream"]).view(5, 1))
    torch.testing.assert_close(y.flatten().detach(), tensor(expected["y"]), rtol=0, atol=atol)
    torch.testing.assert_close(x.grad.flatten(), tensor(expected["dx"]), rtol=0, atol=atol)
    torch.testing.assert_close(module.alpha.grad, tensor([expected["d_alpha"]]), rtol=0, atol=atol)
    torch.testing.assert_close(module.shift.grad, tensor([sum(expected["dx"])]), rtol=0, atol=atol)
    module.calibrate(x)
    if "alpha_init" in expected:
        torch.testing.assert_close(module.alpha.data, tensor([expected["alpha_init"]]), rtol=0, atol=atol)


def test_sparse_input_equals_its_vectors_and_learns_the_width_of_its_window(vectors, tensor):
    expected, common = vectors["a_si_bnn"], vectors["a_common"]
    module = SparseInput(expected["theta"], expected["delta"]).to(tensor(0.0).dtype)
    x = tensor(common["x"]).requires_grad_()
    y = module(x)
    assert torch.equal(y.detach(), tensor(expected["y"]))
    y.backward(tensor(common["upstream"]))
    # x = (-1.5, -0.8, -0.3, 0, 0.4, 0.9, 1.7): the window is [-0.5, 1.5].
    torch.testing.assert_close(x.grad, tensor([0.0, 0.0, 0.5, 1.0, -1.0, 2.0, 0.0]))
    torch.testing.assert_close(module.delta.grad, tensor([0.25 - (1.0 - 2.0)]))


def test_residual_terms_equal_their_vectors(vectors, tensor, atol):
    expected = vectors["a_residual_M2"]
    x = tensor(expected["x"])[None].requires_grad_()
    module = ResidualSign(2)
    y = module(x)
    torch.testing.assert_close(y[0].detach(), tensor(expected["y"]), rtol=0, atol=atol)
    sizes, bits = tensor(expected["a"]), tensor(expected["bits"])
    torch.testing.assert_close(y[0].detach(), (sizes[:, None] * bits).sum(0), rtol=0, atol=atol)
    y.backward(torch.ones_like(y))
    assert x.grad is not None and x.grad.tolist() == [[1, 1, 1, 0]]
    assert module.bitplanes == 2


def test_the_root_is_the_straight_through_estimator_first_and_steep_later():
    x = torch.tensor([-2.0, -1.5, -0.1, 0.0, 0.05, 0.5, 1.5, 1.6], dtype=torch.float64)
    assert PowerSign().double().derivative(x).tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
    h = PowerSign(o=3.0).double().derivative(x)
    middle = 0.1 ** (1 / 3) / 0.1
    wanted = [0, 1.5 ** (-2 / 3) / 3, middle, middle, middle, 0.5 ** (-2 / 3) / 3, 1.5 ** (-2 / 3) / 3, 0]
    assert h.tolist() == pytest.approx(wanted)


def test_a_threshold_follows_each_instance_and_is_that_of_reactnet_at_the_start():
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    module, plain = InstanceSign(2).double(), RSign(2).double()
    for one in (module, plain):
        one.calibrate(x)
    assert torch.equal(module(x), plain(x))
    module.follow.data.fill_(0.5)
    width, tau = (p.view(1, 2, 1, 1) for p in (module.width, module.tau))
    threshold = tau + width * 0.5 * (x / width).pow(3).mean((2, 3), keepdim=True)
    assert torch.equal(module(x) > 0, x >= threshold)
    # One image's threshold does not depend on the others.
    assert torch.equal(module(x)[1:], module(x[1:]))
    module(x).sum().backward()
    assert module.follow.grad is not None and module.follow.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "shape, dim, gate", [((2, 8, 3, 3), 1, (2, 5, 1, 1)), ((2, 7, 8), -1, (2, 1, 5)), ((2, 8), 1, (2, 5))]
)
def test_a_gate_is_one_number_an_output_channel_of_an_instance(shape, dim, gate):
    module = GatedSign(8, 5, channel_dim=dim)
    found = module.scale_map(torch.randn(shape), nn.Identity())
    assert found.shape == gate
    assert ((found > 0) & (found < 1)).all()


def test_slopes_are_powers_of_two_and_their_exponents_are_learned():
    module = QuantizedRPReLU(1).double()
    x = torch.tensor([[-2.0], [0.0], [3.0]], dtype=torch.float64)
    assert module(x).flatten().tolist() == [-0.25, 0, 3]
    module.exponent.data.fill_(-1.4)
    assert module(x).flatten().tolist() == [-1, 0, 3]
    module(x).sum().backward()
    # d 2^e / de = ln 2 * 2^e, times the sum of what lies below.
    assert module.exponent.grad.item() == pytest.approx(-2 * 0.5 * 0.6931471805599453)


def test_two_slopes_are_rprelu_where_the_upper_one_is_one():
    x = torch.linspace(-2, 2, 12).view(6, 2)
    module, plain = DPReLU(2), RPReLU(2)
    for one in (module, plain):
        one.gamma.data.fill_(0.25)
        one.zeta.data.fill_(-0.5)
    torch.testing.assert_close(module(x), plain(x))
    assert module.start_as_relu()
    assert torch.equal(module(x), x.relu())


def test_the_logistic_slope_has_the_area_of_the_jump():
    x = torch.linspace(-20, 20, 40001, dtype=torch.float64)
    assert torch.trapezoid(SigmoidSign().derivative(x), x).item() == pytest.approx(2, rel=1e-6)
