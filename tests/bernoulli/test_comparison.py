from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from binarize.bernoulli.comparison import Ensemble, drawn, layer_correlations
from binarize.bernoulli.hardening import harden, soft_layers
from binarize.bernoulli.layers import BernoulliLinear, ExpectationLinear
from binarize.errors import UsageError


def network(size: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(BernoulliLinear(31, 16, forward="clt"), ExpectationLinear(16, 5))
    with torch.no_grad():
        for layer in soft_layers(net):
            drawn_ones = torch.randn(layer.weight.shape)
            layer.weight.copy_(drawn_ones.sign() * size if size > 10 else drawn_ones * size)
    return net.eval()


def inputs(count: int = 200) -> Tensor:
    return torch.randn(count, 31, generator=torch.Generator().manual_seed(0)).sign()


def test_networks_are_drawn_with_their_probabilities_by_a_seed() -> None:
    net = network(0.0)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    first, again, other = drawn(net, 1), drawn(net, 1), drawn(net, 2)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert set(first[0].weight.unique().tolist()) == {-1.0, 1.0}
    share = torch.stack([drawn(net, seed)[0].weight for seed in range(20)]).gt(0).double().mean().item()
    assert share == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.02)
    assert len(soft_layers(net)) == 2


def test_many_drawn_networks_yield_on_average_what_the_soft_one_does() -> None:
    net, x = network(1.0), inputs(50)
    errors = [(Ensemble(net, count)(x) - net(x)).square().mean().sqrt().item() for count in (1, 64)]
    assert errors[1] < errors[0] / 4
    with pytest.raises(UsageError, match="an ensemble of 0 networks"):
        Ensemble(net, 0)
    with pytest.raises(UsageError, match="no layer of the model has random signs to draw"):
        drawn(harden(copy.deepcopy(net)))


def test_soft_and_hard_layers_correlate_fully_where_all_is_certain_and_less_where_not() -> None:
    found = {}
    for size in (50.0, 0.5):
        net = network(size)
        hard = harden(copy.deepcopy(net))
        found[size] = layer_correlations(net, hard, inputs())
    assert found[50.0] == {"0": pytest.approx(1, abs=1e-4), "1": pytest.approx(1, abs=1e-4)}
    assert all(0.3 < value < 0.99 for value in found[0.5].values())
