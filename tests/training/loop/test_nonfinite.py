"""The place where numbers become infinite or NaN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from binarize.training.loop.nonfinite import (
    broken_gradient,
    broken_output,
    broken_parameter,
    finite_gradients,
)


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), Log(), nn.Linear(2, 2))


def test_the_first_module_with_a_broken_output_is_named() -> None:
    assert broken_output(chain(), -torch.ones(1, 2)) in ("2 (Log)",)
    finite = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert broken_output(finite, torch.ones(1, 2)) is None
    assert not finite[0]._forward_hooks


def test_a_broken_parameter_is_named() -> None:
    model = chain()
    assert broken_parameter(model) is None
    model[3].bias.data[1] = float("nan")
    assert broken_parameter(model) == "3.bias"


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_the_broken_gradient_nearest_to_the_output_is_named(value: float) -> None:
    model = chain()
    assert finite_gradients(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert finite_gradients(model) and broken_gradient(model) is None
    assert model[0].weight.grad is not None and model[0].bias.grad is not None
    model[0].weight.grad[0, 0] = value
    model[0].bias.grad[0] = value
    assert not finite_gradients(model)
    assert broken_gradient(model) == "0.bias"
