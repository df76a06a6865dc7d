"""Bop and BayesBiNN against their vectors, and several optimizers as one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.bayesbinn import MeanFieldSign
from binarize.errors import RuleError, UsageError
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.binary_optimizers import BayesBiNN, Bop, Composite
from binarize.training.loop.optimizers import make_optimizer, make_rates

Converted = Callable[..., nn.Module]
VECTORS = json.loads(
    (Path(__file__).parents[2] / "data" / "schemes_vectors.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_bop_equals_its_vectors(dtype: torch.dtype, atol: float) -> None:
    given = VECTORS["o_bop"]
    w = torch.tensor(given["w"], dtype=dtype).requires_grad_()
    optimizer = Bop([w], given["gamma"], given["threshold"])
    optimizer.state[w]["mean"] = torch.tensor(given["m"], dtype=dtype)
    w.grad = torch.tensor(given["grad"], dtype=dtype)
    optimizer.step()
    assert w.tolist() == given["w_new"]
    found = optimizer.state[w]["mean"]
    torch.testing.assert_close(found, torch.tensor(given["m_new"], dtype=dtype), rtol=1e-5, atol=atol * 1e-6)


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_bayesbinn_equals_its_vectors(dtype: torch.dtype, atol: float) -> None:
    given = {key: value for key, value in VECTORS["o_bayesbinn"].items() if key != "note"}
    lam = torch.tensor(given["lam"], dtype=dtype).requires_grad_()
    drawn = MeanFieldSign(given["temperature"]).draw(lam, torch.tensor(given["uniform"], dtype=dtype))
    torch.testing.assert_close(
        drawn.detach(), torch.tensor(given["w_relaxed"], dtype=dtype), rtol=0, atol=atol
    )
    g = torch.tensor(given["grad"], dtype=dtype)
    drawn.backward(g)
    scale = torch.tensor(given["scale"], dtype=dtype)
    torch.testing.assert_close(lam.grad, g * scale, rtol=0, atol=atol)
    BayesBiNN([lam], given["lr"], given["train_set_size"]).step()
    torch.testing.assert_close(lam.detach(), torch.tensor(given["lam_new"], dtype=dtype), rtol=0, atol=atol)


def test_a_cold_draw_is_exactly_a_sign_in_training() -> None:
    torch.manual_seed(0)
    w = torch.randn(64, 64)
    module = MeanFieldSign()
    module.start_from_weight(w, 0)
    assert module(w).unique().tolist() == [-1, 1]
    assert torch.equal(module.eval()(w) > 0, w >= 0)


def step(model: nn.Module, optimizer: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_binary_weights_turn_round_and_keep_their_size_while_the_rest_has_its_own_optimizer(
    converted: Converted,
) -> None:
    model = converted("ConvRelu", "bop")
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, Recipe(binary_optimizer="bop", binary_lr=0.5, lr=1e-2))
    assert isinstance(optimizer, Composite)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    step(model, optimizer, 0)
    for name, layer in model.named_modules():
        if isinstance(layer, BinaryLayer):
            old, new = before[f"{name}.weight"], layer.weight
            assert torch.equal(new.abs(), old.abs())
            assert 0 < (new != old).float().mean() < 1
    assert not torch.equal(model.state_dict()["features.0.weight"], before["features.0.weight"])


def test_a_composite_goes_on_from_its_state_bit_equal(converted: Converted) -> None:
    model = converted("ConvRelu", "bop")
    recipe = Recipe(binary_optimizer="bop", binary_lr=0.5, lr=1e-2)
    optimizer = make_optimizer(model, recipe)
    step(model, optimizer, 0)
    twin, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    step(model, optimizer, 1)
    other = make_optimizer(twin, recipe)
    other.load_state_dict(state)
    step(twin, other, 1)
    for a, b in zip(model.parameters(), twin.parameters()):
        assert torch.equal(a, b)
    # A scheduler still reaches the rates of all of them.
    other.param_groups[-1]["lr"] = 0.0
    assert other.optimizers[1].param_groups[-1]["lr"] == 0.0


def test_the_rate_of_binary_weights_falls_as_that_of_the_others_does() -> None:
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    recipe = Recipe(lr=0.1, schedule="linear")
    optimizer = Composite(torch.optim.SGD([a], lr=0.1), Bop([b], 0.5, lr=0.1, unit=0.1))
    rates = make_rates(optimizer, recipe, 4, 1)
    rates.step_update(2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.05])
    b.grad = torch.ones(2)
    optimizer.step()
    # Half of gamma = 0.5.
    assert optimizer.optimizers[1].state[b]["mean"].tolist() == pytest.approx([0.25, 0.25])


def test_a_closure_is_called_once() -> None:
    a, b = (torch.ones(1, requires_grad=True) for _ in range(2))
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        loss = (a + b).sum()
        loss.backward()
        return loss

    assert Composite(torch.optim.SGD([a], lr=1.0), Bop([b], 1.0)).step(closure) == 2
    assert (calls, a.item(), b.item()) == ([True], 0, -1)


def test_weights_that_are_not_drawn_have_no_bayesian_step(converted: Converted) -> None:
    with pytest.raises(UsageError, match=r"bayesbinn\.MeanFieldSign"):
        make_optimizer(converted("ConvRelu", "bnn"), Recipe(binary_optimizer="bayesbinn"))
    with pytest.raises(RuleError, match='did you mean "bop"'):
        Recipe(binary_optimizer="bob")  # type: ignore[arg-type]
    with pytest.raises(RuleError, match="binary_lr"):
        Recipe(binary_lr=-1.0)
