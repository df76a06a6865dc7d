"""Freezing with every norm, shortcut, activation and threshold around a layer: trained within 1e-5, packed exact."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from frozen_layers import INPUTS, WEIGHTS, assert_frozen, perturbed, randn, trained
from torch import Tensor, nn

from binarize.binarizers.adabin import Maxout
from binarize.binarizers.reactnet import RPReLU
from binarize.layers.layer import BinaryLayer, Threshold
from binarize.layers.shortcuts import ShortcutSpec
from binarize.packed.fold import freeze_layer
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer

SHAPE = (2, 8, 7, 6)


def with_gamma(norm: Any, *values: float) -> Any:
    """A norm with random numbers, its first factors these."""
    perturbed(norm, 3)
    norm.weight.data[: len(values)] = torch.tensor(values)
    return norm


# Of 6 channels. True where the norm becomes part of the layer's affine map.
NORMS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "batch": (lambda: with_gamma(nn.BatchNorm2d(6), -2.0), True),
    "batch of factor 0": (lambda: with_gamma(nn.BatchNorm2d(6), 0.0, -0.0, 1e-30), True),
    "batch without factors": (lambda: perturbed(nn.BatchNorm2d(6, affine=False), 3), True),
    "batch of tiny variance": (
        lambda: nn.BatchNorm2d(6, eps=1e-12).requires_grad_(False).eval(),
        True,
    ),
    "synchronized batch": (lambda: perturbed(nn.SyncBatchNorm(6), 3), True),
    "batch without statistics": (
        lambda: perturbed(nn.BatchNorm2d(6, track_running_stats=False), 3),
        False,
    ),
    "group": (lambda: perturbed(nn.GroupNorm(3, 6), 3), False),
    "instance": (lambda: perturbed(nn.InstanceNorm2d(6, affine=True), 3), False),
    "instance with statistics": (
        lambda: perturbed(nn.InstanceNorm2d(6, affine=True, track_running_stats=True), 3),
        False,
    ),
    "layer": (lambda: perturbed(nn.LayerNorm([6, 7, 6]), 3), False),
}


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("weight", ["bireal", "adabin"])
@pytest.mark.parametrize("name", list(NORMS))
@pytest.mark.sampled(50)
def test_every_norm_is_folded_or_stays(name: str, weight: str, inputs: str) -> None:
    if (weight, inputs) == ("adabin", "multi"):
        return  # has no frozen form
    make, folds = NORMS[name]
    layer = trained("conv2d", weight, inputs)
    layer.norm = make()
    frozen = assert_frozen(layer, randn(*SHAPE, seed=2))
    assert (frozen.norm is None) == folds


BATCH_NORMS: dict[str, type[nn.Module]] = {
    "conv1d": nn.BatchNorm1d,
    "conv2d": nn.BatchNorm2d,
    "conv3d": nn.BatchNorm3d,
    "groups": nn.BatchNorm2d,
    "strided": nn.BatchNorm2d,
    "transposed": nn.BatchNorm2d,
    "linear": nn.BatchNorm1d,
}
SHAPES = {"conv1d": (2, 8, 9), "conv3d": (1, 8, 3, 5, 4), "transposed": (2, 8, 4, 3), "linear": (5, 8)}


@pytest.mark.parametrize("name", list(BATCH_NORMS))
@pytest.mark.parametrize("where", ["inside", "behind"])
def test_every_kind_of_layer_takes_its_norm(name: str, where: str) -> None:
    layer, norm = trained(name, "adabin", "adabin"), perturbed(BATCH_NORMS[name](6), 3)
    if where == "inside":
        layer.norm = norm
    frozen = assert_frozen(
        layer, randn(*SHAPES.get(name, SHAPE), seed=2), norm if where == "behind" else None
    )
    assert list(frozen.named_children()) == []


# In front of a sign: a threshold, or a norm.
FRONTS: dict[str, Callable[[], nn.Module | None]] = {
    "nothing": lambda: None,
    "threshold": lambda: perturbed(Threshold(8), 5),
    "threshold at 0": lambda: Threshold(8),
    "rising norm": lambda: with_gamma(nn.BatchNorm2d(8), *[0.5, 1.0, 2.0, 3.0, 0.1, 1e-3, 1.0, 5.0]),
    "falling norm": lambda: with_gamma(nn.BatchNorm2d(8), *[-0.5, 1.0, -2.0, 3.0, -0.1, 1.0, -1.0, 5.0]),
    "norm of factor 0": lambda: with_gamma(nn.BatchNorm2d(8), 0.0, -0.0, 1e-38),
    "norm without factors": lambda: perturbed(nn.BatchNorm2d(8, affine=False), 5),
    "group norm": lambda: perturbed(nn.GroupNorm(2, 8), 5),
    "instance norm": lambda: perturbed(nn.InstanceNorm2d(8, affine=True), 5),
}


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("weight", ["signs", "adabin"])
@pytest.mark.parametrize("name", list(FRONTS))
@pytest.mark.sampled(45)
def test_every_threshold_or_norm_in_front_of_a_sign(name: str, weight: str, inputs: str) -> None:
    if (weight, inputs) == ("adabin", "multi"):
        return
    layer, x = trained("conv2d", weight, inputs, threshold=FRONTS[name]()), randn(*SHAPE, seed=2)
    x[0, :, 0] = 0.0  # ties
    frozen = assert_frozen(layer, x)
    if inputs != "float" and "threshold" in name:
        assert frozen.front is None


def test_a_sign_at_its_threshold_is_upper_in_every_form() -> None:
    layer = trained("conv2d", "signs", "signs", threshold=perturbed(Threshold(8), 5))
    front = layer.threshold
    assert isinstance(front, Threshold)
    tau = front.tau.detach().view(1, 8, 1, 1)
    steps = torch.stack([tau, tau.nextafter(torch.tensor(-9.0)), tau.nextafter(torch.tensor(9.0))], 4)
    assert_frozen(layer, steps.squeeze(0).permute(3, 0, 1, 2).expand(3, 8, 3, 3).contiguous())


# (8 -> channels, stride) and what leads the input there.
SHORTCUTS: dict[str, tuple[ShortcutSpec, int, int]] = {
    "identity": (ShortcutSpec(), 8, 1),
    "average pool": (ShortcutSpec((2, 2)), 8, 2),
    "repeat": (ShortcutSpec(repeat=2), 16, 1),
    "pool and repeat": (ShortcutSpec((2, 2), repeat=3), 24, 2),
    "mean": (ShortcutSpec(mean=2), 4, 1),
    "projection": (ShortcutSpec((2, 2), conv=True), 6, 2),
    "factors": (ShortcutSpec((2, 2), repeat=2, scale=True), 16, 2),
}
ACTIVATIONS: dict[str, Callable[[int], nn.Module | None]] = {
    "nothing": lambda n: None,
    "maxout": lambda n: perturbed(Maxout(n), 6),
    "rprelu": lambda n: perturbed(RPReLU(n), 6),
    "prelu": lambda n: perturbed(nn.PReLU(n), 6),
    "hardtanh": lambda n: nn.Hardtanh(),
    "relu": lambda n: nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("name", list(SHORTCUTS))
def test_every_shortcut_and_activation(name: str, activation: str) -> None:
    spec, channels, stride = SHORTCUTS[name]
    torch.manual_seed(0)
    for inside in (True, False):
        layer = made(nn.Conv2d(8, channels, 3, stride, 1), norm=perturbed(nn.BatchNorm2d(channels), 3))
        layer.shortcut = perturbed(spec.build(8, channels, 2), 4)
        layer.activation = ACTIVATIONS[activation](channels)
        layer.shortcut_inside = layer.activation_inside = inside
        x = randn(2, 8, 8, 7, seed=2)
        frozen = assert_frozen(layer, x)
        assert frozen.shortcut is layer.shortcut and frozen.shortcut_inside == inside
        assert frozen.activation is layer.activation and frozen.activation_inside == inside


def made(float_layer: nn.Module, **parts: nn.Module) -> BinaryLayer:
    """An AdaBin layer from a float one."""
    from binarize.layers.classes import binary_class

    cls = binary_class(float_layer)
    assert cls is not None
    layer = cls.from_float(
        float_layer, weight_binarizer=WEIGHTS["adabin"](0, 1), input_binarizer=INPUTS["adabin"](1)
    )
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer.eval()


# --- one bit a weight


def floats_of(shape: tuple[int, ...]) -> int:
    """How many float tensors of a shape are alive in this process, those from before `gc.freeze` not counted."""
    gc.collect()
    alive = (one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter))
    return sum(one.is_floating_point() and tuple(one.shape) == shape for one in alive)


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize(
    "make",
    [lambda: nn.Conv2d(24, 23, 3, padding=1), lambda: nn.Linear(24, 207), lambda: nn.Conv3d(24, 23, 1)],
)
def test_a_packed_layer_keeps_no_float_of_its_weight(make: Callable[[], nn.Module], inputs: str) -> None:
    """Not before it ran, and not after: its signs take one bit each, also where its inputs are floats."""
    if inputs == "rsign" or inputs == "multi":
        return  # they know 8 channels
    torch.manual_seed(0)
    layer = made(make())
    layer.input_binarizer = INPUTS[inputs](1)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    shape = tuple(weight.shape)
    gc.freeze()
    before = floats_of(shape)
    frozen = freeze_layer(layer)
    assert isinstance(frozen, FrozenLayer), frozen
    packed = PackedLayer.of(frozen.form, frozen.lower)
    with torch.no_grad():
        packed(randn(2, 24, *[5] * (len(shape) - 2)))
    assert floats_of(shape) == before
    bits = -(-weight[0].numel() // 8) * len(weight)
    numbers = sum(t.numel() for name, t in packed.state_dict().items() if name != "bits")
    assert packed.bits.numel() == bits
    assert packed.packed_bytes() <= bits + 4 * numbers
