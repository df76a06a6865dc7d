"""Gradients of gradients, as penalties on a critic's gradient take them: there, or refused, and never left out."""

from __future__ import annotations

from collections.abc import Iterator

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.layers import product

SCHEMES = ("adabin", "bireal", "bnn", "bnnplus", "dorefa", "ienet", "irnet", "reactnet", "xnor", "xnorpp")


class _Critic(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nets.conv(3, 16), nets.conv(), nets.conv(16, 24)])
        self.activation, self.last = activation, nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.last(x.mean((2, 3)))


def _critic(scheme: str, activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = _Critic(activation)
    return binarize.convert(model, scheme, shortcuts="never", example_input=nets.pictures(2, 8)).eval()


def _penalty_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """(the gradient at the input, the gradients of its squared size at the parameters)."""
    x = nets.pictures(2, 8).requires_grad_()
    (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    model.zero_grad()
    g.square().sum().backward()
    return g.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def plain() -> Iterator[pytest.MonkeyPatch]:
    """Layers that keep everything and are differentiated by torch's own formulas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "_can_recompute", lambda *_: False)
        yield patch


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_gradient_penalty_reaches_every_weight(scheme: str, activation: nn.Module) -> None:
    model = _critic(scheme, activation)
    x = nets.pictures(2, 8).requires_grad_()
    (once,) = torch.autograd.grad(model(x).sum(), x)
    gradient, found = _penalty_gradients(model)
    torch.testing.assert_close(gradient, once, rtol=1e-4, atol=1e-6)
    weights = {name for name, p in model.named_parameters() if p.dim() > 1}
    assert weights <= found.keys()
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("scheme", ["adabin", "bireal", "reactnet"])
def test_second_derivatives_are_those_of_layers_that_keep_everything(
    scheme: str, plain: pytest.MonkeyPatch
) -> None:
    model = _critic(scheme, nn.ReLU())
    _, expected = _penalty_gradients(model)
    plain.undo()
    _, found = _penalty_gradients(model)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_gradient_of_a_centred_deviation_is_exact() -> None:
    """adabin's second derivative at a weight, by differences of its first."""
    from binarize.binarizers.adabin import AdaptiveWeight

    torch.manual_seed(0)
    binarizer = AdaptiveWeight()
    w, g, v = (
        torch.randn(3, 6, dtype=torch.float64),
        torch.randn(3, 6, dtype=torch.float64),
        torch.randn(3, 6),
    )

    def first(w: Tensor) -> Tensor:
        w = w.detach().requires_grad_()
        return torch.autograd.grad((binarizer(w) * g).sum(), w)[0]

    w.requires_grad_()
    (dw,) = torch.autograd.grad((binarizer(w) * g).sum(), w, create_graph=True)
    (second,) = torch.autograd.grad((dw * v).sum(), w)
    step = 1e-6
    for i in (0, 7, 17):
        moved = torch.zeros(18, dtype=torch.float64)
        moved[i] = step
        change = ((first(w + moved.view(3, 6)) - first(w - moved.view(3, 6))) * v).sum() / (2 * step)
        assert abs(float(change) - float(second.flatten()[i])) < 1e-4 * max(1.0, abs(float(change)))
