"""Sign flips: each changed weight counts once, in layers of every scheme."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from binarize.layers.layer import BinaryLayer
from binarize.training.loop.flips import Flips, binary_signs

Converted = Callable[..., nn.Module]


def first_layer(model: nn.Module) -> tuple[str, BinaryLayer, Tensor]:
    for name, layer in model.named_modules():
        if isinstance(layer, BinaryLayer):
            assert isinstance(layer.weight, Tensor)
            return name, layer, layer.weight
    raise AssertionError("no binary layer")


@pytest.mark.parametrize("scheme", ["bnn", "bireal", "dorefa", "binaryconnect"])
def test_signs_are_those_of_the_weights(converted: Converted, scheme: str) -> None:
    _, layer, weight = first_layer(converted("ConvRelu", scheme))
    packed = binary_signs(layer)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    assert torch.equal(bits.flatten()[: weight.numel()].bool(), weight.flatten() >= 0)


@pytest.mark.parametrize("scheme", ["adabin", "irnet", "bireal", "binaryconnect_stochastic"])
def test_negating_one_filter_flips_its_weights(converted: Converted, scheme: str) -> None:
    model = converted("ConvRelu", scheme).train()
    name, _, weight = first_layer(model)
    flips = Flips(model)
    assert set(flips.count().values()) == {0.0}
    with torch.no_grad():
        weight[3].neg_()
    found = flips.count()
    assert found.pop(name) == pytest.approx(1 / len(weight))
    assert set(found.values()) == {0.0}
    assert set(flips.count().values()) == {0.0}


def test_a_filter_of_one_sign_still_has_that_sign(converted: Converted) -> None:
    model = converted("ConvRelu", "bireal")
    name, _, weight = first_layer(model)
    weight.data[0].abs_()
    flips = Flips(model)
    weight.data[0].neg_()
    assert flips.count()[name] == pytest.approx(1 / len(weight))


def test_counting_goes_on_from_saved_signs(converted: Converted) -> None:
    model = converted("ConvRelu")
    name, _, weight = first_layer(model)
    before = Flips(model).state_dict()
    weight.data[0].neg_()
    later = Flips(model)
    later.load_state_dict(before)
    assert later.count()[name] == pytest.approx(1 / len(weight))


def test_transposed_layers_count_by_their_own_axis(converted: Converted) -> None:
    model = converted("Decoder")
    names = [
        name
        for name, m in model.named_modules()
        if isinstance(m, BinaryLayer) and getattr(m, "transposed", False)
    ]
    flips = Flips(model)
    weight = model.get_parameter(f"{names[0]}.weight")
    weight.data[:, 0].neg_()
    assert flips.count()[names[0]] == pytest.approx(1 / weight.shape[1])
