"""Weights that are rotated, clipped, periodic, learned or combined before the sign, against their vectors and formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from binarize.binarizers.adabin_seed002 import LearnedWeight
from binarize.binarizers.biper import PeriodicSign
from binarize.binarizers.bitnet import AbsMaxInput, CentredSign
from binarize.binarizers.proxybnn import BasisWeight
from binarize.binarizers.rbnn import RotatedWeight, Triangle
from binarize.binarizers.rebnn import ResilientWeight
from binarize.binarizers.recu import RectifiedWeight
from binarize.binarizers.sign import sign
from binarize.binarizers.statistics import mean_abs
from binarize.binarizers.xnor import ScaledSign


def turn(angle: float, dtype: torch.dtype) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=dtype)


@pytest.mark.parametrize("gradient", ["simple", "full"])
def test_learned_weight_equals_its_vectors(vectors, tensor, atol, dtype, weight, binarize_weight, gradient):
    expected = vectors["w_seed002_learned"]
    module = LearnedWeight(2, gradient=gradient).to(dtype)
    module.alpha.data.copy_(tensor(expected["alpha"]))
    module.beta.data.copy_(tensor(expected["beta"]))
    wb, dw = binarize_weight(module)
    torch.testing.assert_close(wb, tensor(expected["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(expected["dW_ste_clip"]), rtol=0, atol=atol)
    module(weight).backward(tensor(vectors["w_common"]["upstream_dL_dWb"]))
    for name in ("alpha", "beta"):
        wanted = tensor(expected[f"d_{name}_{gradient}"])
        torch.testing.assert_close(getattr(module, name).grad, wanted, rtol=0, atol=atol)


def test_learned_weight_starts_at_mean_and_deviation_of_a_filter_or_the_layer(weight):
    w = weight.detach()
    module = LearnedWeight(2)
    module.start_from_weight(w, 0)
    torch.testing.assert_close(module.beta.data, w.mean(1))
    torch.testing.assert_close(module.alpha.data, w.std(1, correction=0))
    module = LearnedWeight(2, granularity="layer")
    module.start_from_weight(w, 0)
    torch.testing.assert_close(
        (module.beta.data, module.alpha.data), (w.mean()[None], w.std(correction=0)[None])
    )


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 1e-9, -1e-30])
def test_learned_distance_stays_a_distance_where_it_is_trained_through_zero(alpha):
    module = LearnedWeight(1).double()
    module.alpha.data.fill_(alpha)
    w = torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64)
    size = max(abs(alpha), 1e-4)
    assert module(w).tolist() == [[-size, size, size]]
    module(w).sum().backward()
    assert module.alpha.grad is not None and module.alpha.grad.item() == (1 if alpha >= 0 else -1)


def test_rectified_weight_equals_its_vectors(vectors, tensor, atol, dtype, binarize_weight, weight):
    expected = vectors["w_recu"]
    module = RectifiedWeight().to(dtype)
    module.tau.fill_(0.85)
    torch.testing.assert_close(module.clipped(weight), tensor(expected["w2"]), rtol=0, atol=max(atol, 5e-7))
    wb, dw = binarize_weight(module)
    assert torch.equal(wb, tensor(expected["Wb"]))
    # The mask of the clip, then the derivative of the standardization.
    upstream = (
        tensor(vectors["w_common"]["upstream_dL_dWb"]) * tensor(expected["pass_mask"]) * 2 * math.sqrt(2)
    )
    w = weight.detach()
    d = w - w.mean(1, keepdim=True)
    r = (w.var(1, keepdim=True) + 1e-5).sqrt()
    wanted = (upstream - upstream.mean(1, keepdim=True)) / r
    wanted -= d * (upstream * d).sum(1, keepdim=True) / (3 * r**3)
    torch.testing.assert_close(dw, wanted, rtol=0, atol=max(atol, 2e-6))


def test_a_tau_near_one_draws_nothing_in(vectors, tensor, weight):
    module = RectifiedWeight(tau=0.99).to(weight.dtype)
    assert module.clipped(weight).abs().max() < vectors["w_recu"]["Q_tau_0p99"]


@pytest.mark.parametrize("key", ["w_rbnn_forward", "w_rbnn_grad_full"])
def test_rotated_weight_equals_its_vectors(vectors, tensor, atol, dtype, binarize_weight, weight, key):
    expected = vectors[key]
    module = RotatedWeight(2, Triangle(1.0, 1.0)).to(dtype)
    module.start_from_weight(weight, 0)
    module.left.copy_(turn(expected["R1_angle"], dtype))
    module.right.copy_(turn(expected["R2_angle"], dtype))
    module.theta.data.fill_(expected["rotate"])
    near = max(atol, 2e-6) if dtype == torch.float32 else atol
    torch.testing.assert_close(module.rotated(weight), tensor(expected["w3"]), rtol=0, atol=near)
    wb, dw = binarize_weight(module)
    assert torch.equal(wb, tensor(expected["Wb"]))
    if "dW" in expected:
        torch.testing.assert_close(dw, tensor(expected["dW"]), rtol=0, atol=near)


def test_a_fit_keeps_rotations_orthogonal_and_brings_the_weight_nearer_to_its_signs():
    torch.manual_seed(0)
    w = torch.randn(8, 4, 3, 3, dtype=torch.float64)
    module = RotatedWeight(8).double()
    module.start_from_weight(w, 0)
    before = module.rotated(w).abs().sum()
    module.before_epoch(w)
    assert module.rotated(w).abs().sum() > before
    for rotation in (module.left, module.right):
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(6, dtype=torch.float64))


def test_periodic_sign_equals_its_vectors(vectors, tensor, atol, dtype, binarize_weight, weight):
    expected, module = vectors["w_biper"], PeriodicSign()
    # A weight of float32 is as far from the vectors' as omega (the sine) and omega^2 (its derivative) make of it.
    exact = dtype == torch.float64
    torch.testing.assert_close(
        module.periodic(weight), tensor(expected["stage1"]), rtol=0, atol=atol if exact else 20 * atol
    )
    wb, dw = binarize_weight(module)
    assert torch.equal(wb, tensor(expected["stage2"]))
    torch.testing.assert_close(dw, tensor(expected["dW"]), rtol=0, atol=atol if exact else 400 * atol)


def test_a_periodic_layer_starts_with_the_signs_of_the_float_weights():
    w = torch.randn(4, 256, generator=torch.Generator().manual_seed(0)) * 3
    module, moved = PeriodicSign(), w.clone()
    module.start_from_weight(moved, 0)
    assert torch.equal(module(moved), sign(w))
    again = moved.clone()
    module.start_from_weight(again, 0)
    torch.testing.assert_close(again, moved)


def test_centred_sign_equals_its_vectors(vectors, tensor, atol, binarize_weight):
    wb, dw = binarize_weight(CentredSign())
    torch.testing.assert_close(wb, tensor(vectors["w_bitnet"]["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(vectors["w_bitnet"]["dW_identity"]), rtol=0, atol=atol)


def test_inputs_of_eight_bits_are_whole_steps_of_their_largest_number():
    x = torch.tensor([[1.27, -0.004, 0.006, 0.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    y = AbsMaxInput(channel_dim=-1)(x)
    torch.testing.assert_close(y.detach(), torch.tensor([[1.27, 0.0, 0.01, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    y.backward(torch.full_like(x, 2.0))
    assert x.grad is not None and (x.grad == 2).all()


def test_the_identity_as_basis_is_xnor_net_and_gradients_reach_both_factors(weight):
    module = BasisWeight()
    module.start_from_weight(weight, 0)
    g = torch.linspace(-1, 1, 8, dtype=weight.dtype).view(2, 4)
    found, plain = module(weight), ScaledSign()(weight)
    assert torch.equal(found, plain)
    (dw, dp) = torch.autograd.grad(found, [weight, module.basis], g)
    (wanted,) = torch.autograd.grad(plain, weight, g)
    torch.testing.assert_close(dw, wanted)
    torch.testing.assert_close(dp, weight.detach().T @ wanted)


@pytest.mark.parametrize(
    "shape, size", [((2, 64, 3, 3), 576), ((2, 128, 3, 3), 9), ((2, 4096), 1024), ((3, 1), 1)]
)
def test_a_basis_spans_what_the_size_allows(shape, size):
    module = BasisWeight()
    module.start_from_weight(torch.randn(shape), 0)
    assert module.basis.shape == (size, size)
    torch.testing.assert_close(module.combined(torch.ones(shape)), torch.ones(shape))


def test_a_resilient_weight_is_drawn_to_its_values_by_the_share_of_turned_signs():
    w = torch.tensor([[0.5, -0.25, 1.0, -2.0]], dtype=torch.float64)
    module = ResilientWeight(1, low=0.0, high=10.0).double()
    module.start_from_weight(w, 0)
    alpha = mean_abs(w, 0)
    module.before_step(w * torch.tensor([1, -1, 1, 1]))
    assert module.turned.tolist() == [0.25]
    w.requires_grad_()
    g = torch.tensor([[1.0, 2.0, -4.0, 0.0]], dtype=torch.float64)
    module(w).backward(g)
    s, gamma = sign(w.detach()), 0.25 * 4
    away = w.detach() - alpha * s
    torch.testing.assert_close(w.grad, g * alpha + gamma * away)
    torch.testing.assert_close(module.alpha.grad, ((g - gamma * away) * s).sum(1))
    twin = copy.deepcopy(module)
    module.before_step(w.detach() * torch.tensor([1, -1, 1, 1]))
    assert module.turned.tolist() == [0.0] and twin.turned.tolist() == [0.25]
