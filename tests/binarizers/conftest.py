"""Test vectors of the schemes: inputs, outputs and gradients computed in float64 without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "data" / "schemes_vectors.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def atol(dtype: torch.dtype) -> float:
    return 1e-6 if dtype == torch.float32 else 1e-10


@pytest.fixture
def tensor(dtype: torch.dtype) -> Callable[[object], Tensor]:
    """A tensor of numbers in the type under test."""
    return lambda numbers: torch.tensor(numbers, dtype=dtype)


@pytest.fixture
def weight(vectors: dict[str, Any], tensor: Callable[[object], Tensor]) -> Tensor:
    """The weight all weight vectors share: two filters of four.

    One number equals the mean of its filter. The vectors have it an ulp below; in float32 the mean would be
    rounded to the other side, so here it is lowered by 3e-8.
    """
    w = tensor(vectors["w_common"]["W"])
    if w.dtype == torch.float32:
        w[0, 1] -= 3e-8
    return w.requires_grad_()


@pytest.fixture
def binarize_weight(
    weight: Tensor, vectors: dict[str, Any], tensor: Callable[[object], Tensor]
) -> Callable[[nn.Module], tuple[Tensor, Tensor]]:
    """Wb of a weight binarizer and the gradient at w, after checking that `split` gives the same two."""

    def run(binarizer: nn.Module) -> tuple[Tensor, Tensor]:
        upstream = tensor(vectors["w_common"]["upstream_dL_dWb"])
        wb = binarizer(weight)
        (dw,) = torch.autograd.grad(wb, weight, upstream)
        values, scale = binarizer.split(weight)
        product = values if scale is None else values * scale
        (split_dw,) = torch.autograd.grad(product, weight, upstream)
        assert torch.equal(product, wb)
        assert torch.equal(split_dw, dw)
        return wb, dw

    return run


@pytest.fixture
def binarize_input(
    vectors: dict[str, Any], tensor: Callable[[object], Tensor]
) -> Callable[[nn.Module], tuple[Tensor, Tensor]]:
    """Output of a module on the common input, seven numbers of one channel, and the gradient at x."""

    def run(module: nn.Module) -> tuple[Tensor, Tensor]:
        x = tensor(vectors["a_common"]["x"]).view(7, 1).requires_grad_()
        y = module(x)
        y.backward(tensor(vectors["a_common"]["upstream"]).view(7, 1))
        assert x.grad is not None
        return y.flatten(), x.grad.flatten()

    return run


@pytest.fixture
def with_values(dtype: torch.dtype) -> Callable[..., nn.Module]:
    """A module in the type under test, named parameters and buffers set without going through float32."""

    def build(module: nn.Module, **values: float) -> nn.Module:
        module.to(dtype)
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, value in values.items():
            tensors[name].data.fill_(value)
        return module

    return build
