"""Regularizers against hand-computed sums and gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.layers.layer import BinaryLayer
from binarize.training.loop.regularizers import bipolar, euclidean, manhattan, oscillation, regularization

VECTORS = json.loads(
    (Path(__file__).parents[2] / "data" / "schemes_vectors.json").read_text(encoding="utf-8")
)
W = [[0.5, -0.2, 0.1, -1.2], [0.3, 0.4, -0.6, 0.9]]
ALPHA = [0.6, 0.5]


def leaves() -> tuple[Tensor, Tensor]:
    w = torch.tensor(W, dtype=torch.float64, requires_grad=True)
    return w, torch.tensor(ALPHA, dtype=torch.float64, requires_grad=True)


def close(found: Tensor | None, wanted: object) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)


def test_manhattan_sum_and_gradients() -> None:
    w, alpha = leaves()
    value = manhattan(w, alpha)
    value.backward()
    close(value.detach(), 2.4)
    close(w.grad, [[-1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]])
    close(alpha.grad, [2.0, 0.0])


def test_euclidean_sum_and_gradients() -> None:
    w, alpha = leaves()
    value = euclidean(w, alpha)
    value.backward()
    close(value.detach(), 1.0)
    close(w.grad, [[-0.2, 0.8, -1.0, -1.2], [-0.4, -0.2, -0.2, 0.8]])
    close(alpha.grad, [0.8, -0.4])


def test_bipolar_sum_and_gradient() -> None:
    w, _ = leaves()
    value = bipolar(w)
    value.backward()
    close(value.detach(), 4.84)
    close(w.grad, [[-1.0, 0.4, -0.2, 2.4], [-0.6, -0.8, 1.2, -1.8]])


def test_oscillation_is_how_far_weights_are_from_one() -> None:
    w, _ = leaves()
    value = oscillation(w)
    value.backward()
    close(value.detach(), (0.5 + 0.8 + 0.9 + 0.2 + 0.7 + 0.6 + 0.4 + 0.1) / 8)
    close(w.grad, [[-0.125, 0.125, -0.125, -0.125], [-0.125, -0.125, 0.125, -0.125]])


@pytest.mark.parametrize(
    "name, w_given", [("R1", manhattan), ("R2", euclidean)], ids=["manhattan", "euclidean"]
)
def test_terms_of_bnnplus_equal_their_vectors(name: str, w_given: Callable[..., Tensor]) -> None:
    given = VECTORS["r_bnnplus"]
    w, _ = leaves()
    value = w_given(w, torch.tensor(given["alpha"], dtype=torch.float64).requires_grad_())
    value.backward()
    torch.testing.assert_close(
        value.detach(), torch.tensor(given[name], dtype=torch.float64), rtol=0, atol=1e-10
    )
    close(w.grad, given[f"dW_{name}"])


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_the_term_of_tang_equals_its_vectors(dtype: torch.dtype, atol: float) -> None:
    given = VECTORS["r_tang"]
    w = torch.tensor(VECTORS["w_common"]["W"], dtype=dtype).requires_grad_()
    value = bipolar(w)
    value.backward()
    torch.testing.assert_close(value.item(), given["R"], rtol=0, atol=atol * 10)
    torch.testing.assert_close(w.grad, torch.tensor(given["dW"], dtype=dtype), rtol=0, atol=atol)


def test_a_weight_of_zero_is_pushed_up() -> None:
    w = torch.zeros(1, 1, requires_grad=True)
    manhattan(w, torch.ones(1)).backward()
    assert w.grad is not None and w.grad.item() == -1


def test_sums_run_over_the_latent_weights_of_all_binary_layers(converted: Callable[..., nn.Module]) -> None:
    model = converted("ConvRelu", "bnnplus")
    layers = [layer for layer in model.modules() if isinstance(layer, BinaryLayer)]
    wanted = sum((1 - layer.weight.double().square()).sum() for layer in layers)  # type: ignore[operator]
    torch.testing.assert_close(regularization(model, "bipolar").double(), wanted, rtol=1e-5, atol=0)
    regularization(model, "manhattan").backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {
        f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)
    }


def test_a_learned_scale_is_the_alpha_of_its_filters_and_trained(converted: Callable[..., nn.Module]) -> None:
    model = converted("ConvRelu", "bnnplus_paper")
    layers = [layer for layer in model.modules() if isinstance(layer, BinaryLayer)]
    for kind, term in (("manhattan", manhattan), ("euclidean", euclidean)):
        wanted = sum(term(layer.weight.double(), layer.scale.s.double()) for layer in layers)
        model.zero_grad()
        found = regularization(model, kind)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)
        found.backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        of_layers = [name for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)]
        # The mean magnitude, where the scales start, is where the squares are least already.
        scales = {f"{name}.scale.s" for name in of_layers} if kind == "manhattan" else set()
        assert reached - {f"{name}.scale.s" for name in of_layers} == {f"{name}.weight" for name in of_layers}
        assert reached >= scales


def test_an_unknown_kind_is_named(converted: Callable[..., nn.Module]) -> None:
    with pytest.raises(UsageError, match='did you mean "euclidean"'):
        regularization(converted("ConvRelu"), "euclidian")
