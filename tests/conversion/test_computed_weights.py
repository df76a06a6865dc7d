"""Weights that are computed of other parameters: what is computed is binarized, the parameters behind it are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import binarize
from binarize.computed_weights import latent_parameters
from binarize.layers.layer import BinaryLayer


class _Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return (w + w.flip(-1)) / 2


def _symmetric(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", _Symmetric())


def _pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.3)


def _pruned_twice(layer: nn.Module) -> None:
    _pruned(layer)
    prune.random_structured(layer, "weight", 2, dim=0)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "own": _symmetric,
    "weight_norm by a hook": nn.utils.weight_norm,
    "spectral_norm by a hook": nn.utils.spectral_norm,
    "pruned": _pruned,
    "pruned twice": _pruned_twice,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", WAYS)
def test_the_computed_weight_is_binarized_and_its_parameters_are_trained(name: str, tmp_path: Path) -> None:
    model = nets.seeded(nets.ConvRelu)
    WAYS[name](model.features[2])
    x = nets.pictures(4)
    model.train()(x)
    model.eval()(x)
    binary = binarize.convert(model, "bireal", example_input=x)
    layer: Any = binary.features[2]
    assert isinstance(layer, BinaryLayer)
    wanted = model.features[2].weight.detach()
    assert torch.equal(layer.real_weight().detach(), wanted)
    assert torch.equal(layer.binarized_weight()[0].detach().sign(), torch.where(wanted >= 0, 1.0, -1.0))
    assert binarize.plan(model, "bireal")["features.2"].layer.weights == wanted.numel()

    binary.train()(x).square().mean().backward()
    behind = latent_parameters(layer)
    assert behind and all(one.grad is not None and one.grad.any() for one in behind)
    binary.eval()
    with torch.no_grad():
        behind[-1].mul_(-1)
    folder = binarize.save(binary, tmp_path / "net")
    assert torch.equal(binarize.load(folder, model=model)(x), binary(x))
    packed = binarize.pack(folder, model=model)
    assert not packed.frozen.kept
    assert torch.allclose(binarize.load_packed(packed.path)(x), binary(x), atol=1e-5)


def test_a_model_of_computed_weights_is_calibrated_to_its_float_model() -> None:
    model, x = nets.seeded(nets.ConvRelu), nets.pictures(8)
    parametrizations.weight_norm(model.features[2])
    binary = binarize.convert(model, "bireal", example_input=x)
    assert "features.2" in binarize.calibrate(binary, x, model, steps=2).fitted


def test_layers_that_share_a_weight_become_binary_together(tmp_path: Path) -> None:
    model, x = nets.seeded(nets.Tied), nets.pictures(4)
    binary: Any = binarize.convert(model, "xnor", example_input=x)
    assert isinstance(binary.conv1, BinaryLayer) and binary.conv1.weight is binary.conv2.weight
    before = binary.conv1.weight.detach().clone()
    assert binarize.calibrate(binary, x, model).flipped.keys().isdisjoint({"conv1", "conv2"})
    assert torch.equal(binary.conv1.weight, before)
    loaded: Any = binarize.load(binarize.save(binary, tmp_path / "net"), model=model)
    assert loaded.conv1.weight is loaded.conv2.weight and torch.equal(loaded(x), binary(x))


def test_a_layer_stays_float_with_the_one_whose_weight_it_shares() -> None:
    model = nets.seeded(nets.Tied)
    plan = binarize.plan(model, "bireal", keep=["conv2"])
    assert plan["conv1"].why == "it shares a parameter with conv2, which stays float"
    assert plan["conv3"].action == "binarize"
