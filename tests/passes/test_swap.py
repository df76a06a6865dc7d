"""A binary layer in a float one's place: the same path and parameters, its parts below it."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import nn

from binarize.errors import RewriteError
from binarize.layers.conv import BinaryConv2d, BinaryConvTranspose2d
from binarize.layers.layer import Threshold
from binarize.layers.linear import BinaryLinear
from binarize.layers.shortcuts import ShortcutSpec
from binarize.passes.swap import swap_layer
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import Swap
from binarize.planning.record.origin import UNKNOWN, Origin
from binarize.rules.load import load_rule_set
from binarize.schemes.part import Part


def swapped(root: nn.Module, path: str, scheme: str = "adabin", **args: Any) -> Any:
    swap_layer(root, Swap(path, scheme, **args), load_rule_set(scheme).schemes[scheme])
    return root.get_submodule(path)


@pytest.mark.parametrize(
    "layer, binary",
    [
        (nn.Conv2d(4, 8, 3, bias=False), BinaryConv2d),
        (nn.ConvTranspose2d(4, 8, 3), BinaryConvTranspose2d),
        (nn.Linear(4, 8), BinaryLinear),
        (nets.NamedConv(4, 8, 3), BinaryConv2d),
    ],
)
def test_the_same_parameters_stand_at_the_same_path(layer: nn.Module, binary: type) -> None:
    root = nn.Sequential(nn.ReLU(), nn.Sequential(layer.eval()))
    names, weight = [name for name, _ in root.named_parameters()], layer.weight
    new = swapped(root, "1.0", "bireal")
    assert type(new) is binary
    assert new.weight is weight
    assert [name for name, _ in root.named_parameters()] == names
    assert not new.training


def test_a_layer_under_two_names_is_replaced_under_both() -> None:
    model = nets.TwoNames()
    new = swapped(model, "conv1")
    assert model.conv1 is new and model.conv2 is new


def test_parts_are_built_for_the_layers_channels() -> None:
    root = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False))
    spec = ShortcutSpec(repeat=2)
    activation = NewActivation(Part("adabin.Maxout"), 8, 1)
    new = swapped(
        root, "0", norm="BatchNorm2d", shortcut=spec, activation=activation, activation_inside=True, threshold=UNKNOWN,
    )  # fmt: skip
    assert isinstance(new.threshold, Threshold) and new.threshold.tau.shape == (4,)
    assert new.norm.num_features == 8
    assert new.shortcut.times == 2 and not new.shortcut_inside
    assert new.activation.pos.shape == (8,) and new.activation_inside


def test_an_input_norm_takes_the_thresholds_place() -> None:
    new = swapped(nn.Sequential(nn.Conv2d(4, 8, 3)), "0", "xnor", input_norm="BatchNorm2d")
    assert isinstance(new.threshold, nn.BatchNorm2d) and new.threshold.num_features == 4
    assert new.norm is None


def test_the_bias_of_the_layer_becomes_that_of_its_norm() -> None:
    root = nn.Sequential(nn.Conv2d(4, 8, 3))
    bias = root[0].bias.detach().clone()
    new = swapped(root, "0", norm="BatchNorm2d")
    assert new.bias is None
    assert torch.equal(new.norm.bias, bias)


def test_a_threshold_starts_at_the_mean_that_the_norm_in_front_promises() -> None:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-9.0, 0.0, 0.0, 9.0]))
        norm.weight.copy_(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    root = nn.Sequential(norm, nn.ReLU(), nn.Conv2d(4, 8, 3))
    new = swapped(root, "2", threshold=Origin("0", activation="relu"))
    # E[max(z, 0)] of a standard normal z is 1 / sqrt(2 pi).
    mean = (2 * torch.pi) ** -0.5
    torch.testing.assert_close(new.threshold.tau, torch.tensor([0.0, mean, 2 * mean, 9.0]), rtol=0, atol=0.02)


@pytest.mark.parametrize("layer", [nets.StandardizedConv(4, 4, 1), nn.MultiheadAttention(4, 2), nn.ReLU()])
def test_a_layer_without_binary_form_is_an_error_of_the_plan(layer: nn.Module) -> None:
    with pytest.raises(RewriteError, match=f"swap: 0 is a {type(layer).__name__}, which has no binary class"):
        swapped(nn.Sequential(layer), "0")
