from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from binarize.bernoulli.moments import moments_of
from binarize.bernoulli.relatives import (
    binary_concrete,
    ebp_moments,
    ebp_output,
    ebp_step,
    sign_of_gaussian,
    stochastic_batch_norm,
)


def tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(found, tensor(expected), rtol=0, atol=1e-10)


def test_a_sign_of_a_gaussian_equals_its_vector(vectors: Any) -> None:
    v = vectors["p_sign_of_gaussian"]
    mean, variance = sign_of_gaussian(tensor(v["m"]), tensor(v["v"]))
    close(mean, v["mean"])
    close(variance, v["var"])


def test_its_gradients_equal_their_vector(vectors: Any) -> None:
    v = vectors["p_sign_grad"]
    mean, variance = (tensor(v[key]).requires_grad_() for key in ("mu", "var"))
    q = (1 + sign_of_gaussian(mean, variance)[0]) / 2
    slopes = torch.autograd.grad(q, (mean, variance))
    assert [q.item(), *(slope.item() for slope in slopes)] == pytest.approx(
        [v["q"], v["dq_dmu"], v["dq_dvar"]], abs=1e-10
    )


def test_pbnet_equals_its_vector(vectors: Any) -> None:
    v = vectors["p_pbnet"]
    theta, x = tensor(v["theta"]), tensor(v["phi_in"])
    mean, squares = moments_of(x, theta, F.linear, 2)
    variance = x.shape[1] - squares
    close(mean, v["mu"])
    close(variance, v["var"])
    mean, variance = stochastic_batch_norm(
        mean, variance, tensor([v["gamma"]]), tensor([v["beta"]]), v["eps"]
    )
    close(mean, v["mu_bn"])
    close(variance, v["var_bn"])
    out, _ = sign_of_gaussian(mean, variance)
    close(out, v["mean_out"])
    sample = binary_concrete((1 + out) / 2, tensor(v["uniform"]), v["temperature"])
    close(sample, v["concrete_pm1"])
    close(sample.sign(), v["hard_sample"])


def test_moments_of_an_image_are_those_of_its_pixels_one_below_the_other() -> None:
    mean, variance = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    gamma, beta = torch.randn(3), torch.randn(3)
    found = stochastic_batch_norm(mean, variance, gamma, beta)
    flat = stochastic_batch_norm(*(m.movedim(1, -1).reshape(-1, 3) for m in (mean, variance)), gamma, beta)
    for one, other in zip(found, flat, strict=True):
        torch.testing.assert_close(one.movedim(1, -1).reshape(-1, 3), other)


def test_expectation_back_propagation_equals_its_vector(vectors: Any) -> None:
    v = vectors["p_ebp_single"]
    x, h = tensor(v["x"]), tensor(v["h"])
    weight = torch.tanh(h)
    close(weight, v["mean_w"])
    mean, variance = ebp_moments(weight, x, random=False)
    close(mean, v["mu"])
    close(variance, v["var"])
    close(sign_of_gaussian(mean, variance)[0], v["nu"])
    delta = ebp_output(mean, variance, tensor([v["y"]]))
    close(delta, v["delta"])
    close(ebp_step(h, delta, x), v["h_new"])
