from __future__ import annotations

import pytest
import torch

from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight, Maxout
from binarize.binarizers.adabin_autograd import mean_and_deviation
from binarize.binarizers.adabin_formulas import bent_gradients, filter_gradient, level_gradients
from binarize.binarizers.irnet import Ede


@pytest.mark.parametrize("key", ["w_adabin_t1_k1", "w_adabin_t0.1_k10"])
def test_adaptive_weight_equals_its_vectors(vectors, tensor, atol, binarize_weight, with_values, key):
    expected = vectors[key]
    estimator = with_values(Ede(), t=expected["t"], k=expected["k"])
    wb, dw = binarize_weight(AdaptiveWeight(estimator))
    torch.testing.assert_close(wb, tensor(expected["Wb"]), rtol=0, atol=atol)
    torch.testing.assert_close(dw, tensor(expected["dW_full"]), rtol=0, atol=atol)


@pytest.mark.parametrize("form", ["paper", "code"])
def test_adaptive_input_equals_its_vectors(vectors, tensor, atol, binarize_input, with_values, form):
    expected = vectors[f"a_adabin_{form}"]
    module = with_values(AdaptiveInput(form=form), alpha=expected["alpha"], beta=expected["beta"])
    y, dx = binarize_input(module)
    torch.testing.assert_close(y, tensor(expected["y"]), rtol=0, atol=atol)
    torch.testing.assert_close(dx, tensor(expected["dx"]), rtol=0, atol=atol)
    torch.testing.assert_close(module.alpha.grad, tensor([expected["d_alpha"]]), rtol=0, atol=atol)
    torch.testing.assert_close(module.beta.grad, tensor([expected["d_beta"]]), rtol=0, atol=atol)


@pytest.mark.parametrize("start", [-0.8, 0.0, 1e-6])
def test_adaptive_input_scale_stays_positive_and_can_leave_zero(start):
    module = AdaptiveInput()
    with torch.no_grad():
        module.alpha.fill_(start)
    assert module.scale().item() == pytest.approx(max(abs(start), 1e-4))
    lower, upper = module(torch.tensor([-1.0, 1.0])).tolist()
    assert lower < upper
    torch.sum(module(torch.tensor([-1.0, 1.0])) * torch.tensor([-1.0, 1.0])).backward()
    # Moving alpha away from zero moves the two values apart: the gradient points there.
    assert module.alpha.grad.item() == (-2 if start < 0 else 2)


def test_adaptive_input_calibrates_to_mean_and_deviation():
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(8, 4, 5, 5)
    module = AdaptiveInput()
    module.calibrate(x)
    assert module.beta.item() == pytest.approx(x.mean().item(), rel=1e-6)
    assert module.alpha.item() == pytest.approx(x.std(correction=0).item(), rel=1e-6)


def test_adaptive_input_sums_its_gradients_in_float32_for_half_inputs():
    x = torch.full((40000,), 2.0, dtype=torch.float16)
    module = AdaptiveInput()
    # 40000 equal terms of 1: a float16 sum would stop at 2048.
    module(x).backward(torch.ones_like(x))
    assert module.beta.grad.item() == 40000
    assert module.alpha.grad.item() == 40000


def test_maxout_equals_its_vectors(vectors, tensor, atol, binarize_input, with_values):
    expected = vectors["a_maxout"]
    module = with_values(Maxout(1), pos=expected["pos"], neg=expected["neg"])
    y, dx = binarize_input(module)
    torch.testing.assert_close(y, tensor(expected["y"]), rtol=0, atol=atol)
    torch.testing.assert_close(dx, tensor(expected["dx"]), rtol=0, atol=atol)
    torch.testing.assert_close(module.pos.grad, tensor([expected["d_pos"]]), rtol=0, atol=atol)
    torch.testing.assert_close(module.neg.grad, tensor([expected["d_neg"]]), rtol=0, atol=atol)


def test_maxout_without_a_negative_side_is_relu():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4)
    assert torch.equal(Maxout(3, neg=0.0)(x), torch.relu(x))


def test_maxout_takes_its_channels_from_the_given_axis():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    first, last = Maxout(5), Maxout(3, channel_dim=-1)
    with torch.no_grad():
        first.neg.copy_(torch.arange(5.0))
        last.neg.copy_(torch.arange(3.0))
    assert torch.equal(first(x), torch.where(x > 0, x, x * torch.arange(5.0).view(1, 5, 1)))
    assert torch.equal(last(x), torch.where(x > 0, x, x * torch.arange(3.0)))


@pytest.mark.parametrize("kind", ["weight", "input", "maxout"])
def test_gradients_in_few_passes_and_by_kernels_are_those_of_the_formulas(kind):
    torch.manual_seed(0)
    x, g = torch.randn(6, 4, 5, dtype=torch.float64), torch.randn(6, 4, 5, dtype=torch.float64)
    estimator, two = Ede(1.0, 1.0), torch.tensor([0.7, -0.3], dtype=torch.float64)
    if kind == "weight":
        _, alpha = mean_and_deviation(x, 0)
        module, tables = AdaptiveWeight(estimator), []
        expected = (filter_gradient(x, g, alpha, estimator, (1, 2)),)
    elif kind == "input":
        module = AdaptiveInput(estimator)
        tables = [module.alpha, module.beta]
        expected = level_gradients(x, g, two[0].abs(), two[1], estimator)
    else:
        module = Maxout(4)
        tables = [module.pos, module.neg]
        a, b = two.view(2, 1, 1, 1).expand(2, 1, 4, 1)
        expected = bent_gradients(x, g, a, b, 1)
    for table, value in zip(tables, two, strict=False):
        table.data = value.expand(table.shape).clone()
    for dtype in (torch.float64, torch.float32):
        leaf = x.to(dtype).requires_grad_()
        found = torch.autograd.grad(module.to(dtype)(leaf), [leaf, *tables], g.to(dtype))
        for one, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(one, wanted.to(dtype).view_as(one), rtol=1e-5, atol=1e-5)
