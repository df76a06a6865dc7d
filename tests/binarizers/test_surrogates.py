"""Every backward pass is the derivative of a function that stands in for the sign: its differences in float64 say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from binarize.binarizers import (
    abbnn,
    binaryconnect,
    bireal,
    bit,
    bnn,
    bnnplus,
    dorefa,
    fda,
    ienet,
    irnet,
    rbnn,
    reste,
    sibnn,
)

Function = Callable[[Tensor], Tensor]


def triangle(c: float, t: float, k: float) -> Function:
    """The integral of k max(0, c t - (c t)^2 |x| / 2)."""

    def surrogate(x: Tensor) -> Tensor:
        y = x.clamp(-2 / (c * t), 2 / (c * t))
        return k * (c * t * y - (c * t) ** 2 / 4 * y * y.abs())

    return surrogate


def swish(x: Tensor) -> Tensor:
    s = torch.sigmoid(5 * x)
    return 2 * s * (1 + 5 * x * (1 - s)) - 1


def series(x: Tensor) -> Tensor:
    odd = torch.arange(1, 21, 2, dtype=x.dtype)
    return 4 / math.pi * ((odd * 0.1 * x[:, None]).sin() / odd).sum(1)


def root(x: Tensor) -> Tensor:
    """sign(x) |x|^(1/2) from 0.1 to 1.5, a line of the same height below."""
    size = x.abs()
    return x.sgn() * torch.where(size < 0.1, size * 0.1**-0.5, size.clamp_max(1.5).sqrt())


# What a module's backward pass is the derivative of.
SURROGATES: dict[str, tuple[Callable[[], Any], Function]] = {
    "bnn.SteSign": (bnn.SteSign, lambda x: x.clamp(-1, 1)),
    "bnn.SteSign, clip 3": (lambda: bnn.SteSign(3), lambda x: x.clamp(-3, 3)),
    "binaryconnect.IdentitySign": (binaryconnect.IdentitySign, lambda x: x),
    "bireal.ApproxSign": (bireal.ApproxSign, triangle(2, 1, 1)),
    "bnnplus.SwishSign": (bnnplus.SwishSign, swish),
    "fda.FourierSign": (fda.FourierSign, series),
    "ienet.Iee": (lambda: ienet.Iee(2, 1), triangle(math.sqrt(3), 2, 1)),
    "ienet.InputIee": (lambda: ienet.InputIee(0.5, 2), triangle(math.sqrt(3), 1, 1)),
    "irnet.Ede": (lambda: irnet.Ede(2, 3), lambda x: 3 * (2 * x).tanh()),
    "rbnn.Triangle": (lambda: rbnn.Triangle(0.5, 2), triangle(math.sqrt(2), 0.5, 2)),
    "rbnn.InputTriangle": (lambda: rbnn.InputTriangle(2, 1), triangle(math.sqrt(2), 2, 1)),
    "reste.PowerSign": (lambda: reste.PowerSign(2.0), root),
    "abbnn.SigmoidSign": (abbnn.SigmoidSign, lambda x: 2 * torch.sigmoid(3 * x)),
    "dorefa.ZeroOne": (dorefa.ZeroOne, lambda x: x.clamp(0, 1)),
    "sibnn.SparseInput": (
        lambda: sibnn.SparseInput(rho=0.5),
        lambda x: (x - 0.5).clamp(-1, 1) + 0.5 * (x - 1.5).relu(),
    ),
    "bit.ElasticSign": (lambda: bit.ElasticSign(1, alpha=0.8), lambda x: x.clamp(-0.8, 0.8)),
    "bit.ElasticStep": (lambda: bit.ElasticStep(1, alpha=0.8), lambda x: x.clamp(0, 0.8)),
}
STEP = 1e-6


@pytest.mark.parametrize("name", SURROGATES)
def test_the_backward_pass_is_the_derivative_of_its_surrogate(name: str) -> None:
    build, surrogate = SURROGATES[name]
    module = build().double()
    # Between the bends, which lie at round numbers and at those of the triangles.
    x = torch.linspace(-3.4567, 3.4567, 400, dtype=torch.float64)
    g = torch.linspace(-1, 2, 400, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    module(leaf[:, None]).backward(g[:, None])
    difference = (surrogate(x + STEP) - surrogate(x - STEP)) / (2 * STEP)
    torch.testing.assert_close(leaf.grad, g * difference, rtol=1e-6, atol=1e-7)
