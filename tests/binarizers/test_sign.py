from __future__ import annotations

import pytest
import torch

from binarize.binarizers.binaryconnect import IdentitySign
from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.bnnplus import SwishSign
from binarize.binarizers.fda import FourierSign
from binarize.binarizers.ienet import Iee, InputIee
from binarize.binarizers.irnet import Ede
from binarize.binarizers.rbnn import InputTriangle, Triangle
from binarize.binarizers.sign import sign

HALVES_AND_WHOLES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", HALVES_AND_WHOLES, ids=str)
def test_sign_is_plus_one_at_both_zeros_and_at_the_smallest_numbers(dtype):
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor([-torch.inf, -1e4, -1, -tiny, -0.0, 0.0, tiny, 1, 1e4, torch.inf], dtype=dtype)
    assert sign(x).tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
    assert sign(x).dtype == dtype


def test_sign_leaves_its_input_alone():
    x = torch.tensor([-2.0, 3.0])
    sign(x)
    assert x.tolist() == [-2, 3]


@pytest.mark.parametrize(
    ("key", "estimator", "state"),
    [
        ("identity", IdentitySign(), {}),
        ("clip1", SteSign(), {}),
        ("approx_sign", ApproxSign(), {}),
        ("ede_t0p1_k10", Ede(), {"t": 0.1, "k": 10}),
        ("ede_t1_k1", Ede(), {"t": 1, "k": 1}),
        ("ede_t10_k1", Ede(), {"t": 10, "k": 1}),
        ("rbnn_t0p5_k2", Triangle(), {"t": 0.5, "k": 2}),
        ("rbnn_t2_k1", Triangle(), {"t": 2, "k": 1}),
        ("rbnn_act_t0p5", InputTriangle(), {"t": 0.5, "k": 2}),
        ("iee_t0p5_k2", Iee(), {"t": 0.5, "k": 2}),
        ("iee_t2_k1", Iee(), {"t": 2, "k": 1}),
        ("iee_act_t0p5", InputIee(), {"t": 0.5, "k": 2}),
        ("sign_swish_b5", SwishSign(5), {}),
        ("sign_swish_b10", SwishSign(10), {}),
        ("fda_n9", FourierSign(), {"n": 9}),
        ("fda_n18", FourierSign(), {"n": 18}),
        ("fda_n9_masked", FourierSign(clip=1), {"n": 9}),
    ],
)
def test_estimator_derivative_equals_its_vectors(vectors, tensor, atol, with_values, key, estimator, state):
    table = vectors["estimators"]
    with_values(estimator, **state)
    x = tensor(table["x"]).requires_grad_()
    y = estimator(x)
    g = torch.linspace(-1, 2, len(table["x"]), dtype=x.dtype)
    y.backward(g)
    assert y.tolist() == [-1.0 if value < 0 else 1.0 for value in table["x"]]
    torch.testing.assert_close(estimator.derivative(x.detach()), tensor(table[key]), rtol=0, atol=atol)
    torch.testing.assert_close(x.grad, g * tensor(table[key]), rtol=0, atol=2 * atol)


@pytest.mark.parametrize(
    ("estimator", "area"),
    [
        (SteSign(), 2.0),
        (SteSign(1.5), 3.0),
        (ApproxSign(), 2.0),
        (Ede(2.0, 1.0), 2.0),
        (Ede(1.0, 3.0), 6.0),
        (SwishSign(5), 2.0),
        (Triangle(1.0, 1.5), 3.0),
        (InputTriangle(2.0, 9.0), 2.0),
        (Iee(1.0, 1.0), 2.0),
    ],
)
def test_area_under_the_derivative_is_its_share_of_the_jump_of_sign(estimator, area):
    # A derivative of sign has area 2; k scales it. Midpoint rule, step 1e-3.
    x = torch.arange(-20, 20, 1e-3, dtype=torch.float64) + 5e-4
    assert (estimator.derivative(x).sum() * 1e-3).item() == pytest.approx(area, rel=2e-3)
