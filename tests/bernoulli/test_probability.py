from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.bernoulli.masses import least_positives, leave_one_out, mass_function
from binarize.bernoulli.moments import middle
from binarize.bernoulli.probability import FORWARDS, GRADIENTS, nearest_cut, sign_probability
from binarize.errors import UsageError

GROUPS = ("nb_N6", "nb_N5_odd", "nb_N8_half", "nb_N8_confident")


def drawn(
    count: int, certain: float, dtype: torch.dtype = torch.float64, outputs: int = 5
) -> tuple[Tensor, Tensor]:
    """Means of inputs and weights, a share of both -1 or +1."""
    generator = torch.Generator().manual_seed(11)
    x = torch.rand(3, count, generator=generator, dtype=dtype) * 2 - 1
    theta = torch.tanh(torch.randn(outputs, count, generator=generator, dtype=dtype))
    x = torch.where(torch.rand(x.shape, generator=generator) < certain, x.sign(), x)
    return x, torch.where(torch.rand(theta.shape, generator=generator) < certain, theta.sign(), theta)


def by_masses(x: Tensor, theta: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P and its gradients by float64 dynamic programming."""
    a = x.double()[:, None] * theta.double()
    p = mass_function((1 + a) / 2)[..., least_positives(a.shape[-1]) :].sum(-1)
    d = leave_one_out((1 + a) / 2) / 2 * g[..., None]
    return p, (d * theta).sum(1), (d * x[:, None]).sum(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("certain", [0.0, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 16, 25, 64, 255, 1152])
def test_exact_equals_dynamic_programming(count, certain, dtype):
    x, theta = (one.requires_grad_() for one in drawn(count, certain, dtype))
    p = sign_probability(x, theta, forward="exact")
    g = torch.linspace(-1, 1, p.numel(), dtype=torch.float64).view(p.shape)
    dx, dtheta = torch.autograd.grad(p, (x, theta), g.to(dtype))
    for found, expected in zip((p, dx, dtheta), by_masses(x.detach(), theta.detach(), g), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("certain", [0.0, 0.999])
def test_exact_equals_dynamic_programming_at_4096_terms(certain):
    x, theta = drawn(4096, certain, torch.float32, outputs=2)
    a = x.double()[:, None] * theta.double()
    expected = mass_function((1 + a) / 2)[..., 2048:].sum(-1)
    found = sign_probability(x, theta, forward="exact")
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
def test_gradients_equal_their_vectors(vectors, group):
    v = vectors[group]
    x, w = (torch.tensor(v[key], dtype=torch.float64).requires_grad_() for key in ("X", "Wtilde"))
    logits = torch.logit(w.detach()).requires_grad_()
    p = sign_probability((2 * x - 1)[None], (2 * w - 1)[None], forward="exact").squeeze()
    dx, dw = torch.autograd.grad(p, (x, w))
    again = sign_probability(
        (2 * x.detach() - 1)[None], torch.tanh(logits / 2)[None], forward="exact"
    ).squeeze()
    (dlogit,) = torch.autograd.grad(again, logits)
    assert p.item() == pytest.approx(v["P_nonneg"], abs=1e-9)
    for found, key in ((dx, "dP_dX"), (dw, "dP_dW"), (dlogit, "dP_dlogit")):
        torch.testing.assert_close(found, torch.tensor(v[key], dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("gradient", ["exact", "thomas"])
def test_two_layers_equal_their_vector(vectors, gradient):
    v = vectors["nb_two_layer"]
    x, w1, w2 = (torch.tensor(v[key], dtype=torch.float64) for key in ("X", "W1", "W2"))
    w1.requires_grad_()
    p = sign_probability((2 * x - 1)[None], 2 * w1 - 1, forward="exact", gradient=gradient)
    logits = F.linear(2 * p - 1, 2 * w2 - 1)
    torch.testing.assert_close(p[0], torch.tensor(v["hidden_P"], dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        logits[0], torch.tensor(v["logits_EZ"], dtype=torch.float64), rtol=0, atol=1e-7
    )
    (dw,) = torch.autograd.grad(logits[0], w1, torch.tensor(v["upstream"], dtype=torch.float64))
    torch.testing.assert_close(dw, torch.tensor(v["dL_dW1"], dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("count", [6, 9])
def test_gradients_are_those_of_the_probability(forward, count):
    x, theta = ((one * 0.9).requires_grad_() for one in drawn(count, 0.0, outputs=2))
    assert torch.autograd.gradcheck(
        lambda a, b: sign_probability(a, b, forward=forward), (x, theta), atol=1e-7
    )


@pytest.mark.parametrize("forward", ["clt", "edge4"])
def test_gradients_of_series_reach_the_cut(forward):
    x, theta = drawn(40, 0.0, outputs=2)
    cut = torch.tensor([-3.0, 2.5], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: sign_probability(x, theta, c, forward=forward), (cut,), atol=1e-7
    )


@pytest.mark.parametrize("count", [8, 9, 200])
def test_an_exact_gradient_of_the_cut_is_half_the_mean_of_the_masses_beside_it(count):
    x, theta = drawn(count, 0.0, outputs=1)
    cut = torch.tensor([float(middle(count))], dtype=torch.float64).requires_grad_()
    steps = [sign_probability(x, theta, cut.detach() + d, forward="exact") for d in (-2, 2)]
    p = sign_probability(x, theta, cut, forward="exact")
    (slope,) = torch.autograd.grad(p.sum(), cut)
    torch.testing.assert_close(slope, ((steps[1] - steps[0]) / 4).sum(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("count", "clt", "edge4"), [(16, 4e-3, 2e-4), (256, 3e-4, 1e-6), (1152, 1e-4, 2e-7)])
def test_series_are_as_near_as_is_known_where_weights_are_uncertain(count, clt, edge4):
    x, theta = drawn(count, 0.0)
    exact = sign_probability(x, theta, forward="exact")
    for forward, error in (("clt", clt), ("edge4", edge4), ("auto", clt)):
        torch.testing.assert_close(sign_probability(x, theta, forward=forward), exact, rtol=0, atol=error)


@pytest.mark.parametrize("certain", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_auto_is_within_two_thousandths_whatever_is_certain(certain):
    x, theta = drawn(300, certain)
    exact = sign_probability(x, theta, forward="exact")
    torch.testing.assert_close(sign_probability(x, theta), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("forward", FORWARDS)
def test_every_way_gives_finite_numbers_of_the_shapes_asked_for(forward, gradient):
    x, theta = (one.float().requires_grad_() for one in drawn(10, 0.7))
    cut = torch.full((5,), 2.3, requires_grad=True)
    p = sign_probability(x.view(3, 1, 10), theta, cut, forward, gradient)
    assert p.shape == (3, 1, 5)
    assert bool(((p >= 0) & (p <= 1)).all())
    for found, one in zip(torch.autograd.grad(p.sum(), (x, theta, cut)), (x, theta, cut), strict=True):
        assert found.shape == one.shape
        assert found.dtype == one.dtype
        assert bool(found.isfinite().all())


def test_certain_sums_are_the_signs_of_the_ordinary_product():
    generator = torch.Generator().manual_seed(0)
    x, theta = (torch.randn(n, 30, generator=generator).sign() for n in (6, 4))
    expected = (F.linear(x, theta) >= 0).float()
    for forward in ("exact", "auto", "clt", "edge4"):
        torch.testing.assert_close(sign_probability(x, theta, forward=forward), expected, rtol=0, atol=1e-5)


def test_exact_takes_the_nearest_middle_between_two_sums():
    cuts = torch.tensor([-3.9, -0.2, 0.9, 1.1])
    torch.testing.assert_close(nearest_cut(cuts, 8), torch.tensor([-3.0, -1.0, 1.0, 1.0]))
    torch.testing.assert_close(nearest_cut(cuts, 9), torch.tensor([-4.0, 0.0, 0.0, 2.0]))


def test_unknown_ways_are_refused():
    x, theta = drawn(4, 0.0)
    with pytest.raises(UsageError, match=r"no forward 'exakt' .* did you mean \"exact\""):
        sign_probability(x, theta, forward="exakt")
    with pytest.raises(UsageError, match=r"no gradient 'centrel3' .* did you mean \"central3\""):
        sign_probability(x, theta, gradient="centrel3")
