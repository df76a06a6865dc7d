"""Binarizers read as numbers: thresholds exact to the last bit, levels, and what has neither."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight
from binarize.binarizers.bireal import ScaledSign
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.dorefa import LayerScaledSign, ZeroOne
from binarize.binarizers.ienet import MultiSign
from binarize.binarizers.insta import InstanceSign
from binarize.binarizers.irnet import LibraWeight
from binarize.binarizers.reactnet import RSign
from binarize.layers.conv import BinaryConv2d, BinaryConvTranspose2d
from binarize.layers.layer import Threshold
from binarize.layers.linear import BinaryLinear
from binarize.packed.fold import freeze_layer
from binarize.packed.levels import InputLevels, WeightLevels, read_input, read_weight
from binarize.packed.window import Window

CHANNELS = 6


def randomized(module: Any, seed: int = 0, spread: float = 1.0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * spread + 0.1)
    return module.eval()


def layer_with(
    binarizer: nn.Module, front: nn.Module | None = None, dtype: torch.dtype = torch.float32
) -> Any:
    conv = nn.Conv2d(CHANNELS, 4, 3, bias=False, dtype=dtype).eval()
    return BinaryConv2d.from_float(
        conv, weight_binarizer=SteSign(), input_binarizer=binarizer, threshold=front
    )


def levels_of(binarizer: nn.Module, front: nn.Module | None = None, **options: Any) -> InputLevels:
    layer = layer_with(binarizer, front, **options)
    found = read_input(layer, Window.of(layer), layer.threshold)
    assert isinstance(found, InputLevels)
    return found


def norm(seed: int = 0) -> nn.BatchNorm2d:
    """A BatchNorm with gains of both signs, and one of zero."""
    made: nn.BatchNorm2d = randomized(nn.BatchNorm2d(CHANNELS), seed)
    made.running_mean.normal_(generator=torch.Generator().manual_seed(seed))
    made.running_var.uniform_(0.1, 2, generator=torch.Generator().manual_seed(seed))
    made.weight.data.copy_(torch.tensor([0.3, -0.7, 0.0, 1.0, 2.0, 0.1]))
    return made


BINARIZERS: dict[str, tuple[nn.Module, nn.Module | None]] = {
    "sign": (SteSign(), None),
    "rsign": (randomized(RSign(CHANNELS)), None),
    "threshold": (SteSign(), randomized(Threshold(CHANNELS))),
    "adabin": (randomized(AdaptiveInput()), None),
    "adabin code": (randomized(AdaptiveInput(form="code")), None),
    # Rounded twice: (x - tau) - beta.
    "adabin behind a threshold": (
        randomized(AdaptiveInput(), spread=1e-3),
        randomized(Threshold(CHANNELS), 1),
    ),
    "zero one": (ZeroOne(), randomized(Threshold(CHANNELS))),
    "norm": (SteSign(), norm()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(BINARIZERS))
def test_thresholds_are_exact(name: str, dtype: torch.dtype) -> None:
    layer = layer_with(*BINARIZERS[name], dtype=dtype)
    window = Window.of(layer)
    levels = read_input(layer, window, layer.threshold)
    assert isinstance(levels, InputLevels)
    near = levels.threshold[0].nan_to_num(0, 0, 0)
    below, above = (near.nextafter(torch.tensor(end)) for end in (-torch.inf, torch.inf))
    wide = torch.linspace(-3, 3, 400)[:, None].expand(-1, CHANNELS)
    x = torch.cat([below[None], near[None], above[None], wide, near + wide * 1e-6]).to(dtype)[..., None, None]
    upper = (x >= levels.threshold[0].view(-1, 1, 1)) ^ levels.falling.view(-1, 1, 1)
    expected = torch.where(upper, levels.upper, levels.lower).to(dtype)
    with torch.no_grad():
        found = layer.binarized_input(x)
    assert torch.equal(found, expected)


def test_what_the_levels_are() -> None:
    assert (levels_of(SteSign()).upper, levels_of(SteSign()).lower) == (1.0, -1.0)
    zero_one = levels_of(ZeroOne())
    assert (zero_one.zero_one, zero_one.upper, zero_one.lower) == (True, 1.0, 0.0)
    assert torch.equal(zero_one.threshold, torch.full((1, CHANNELS), 0.5))
    binarizer = AdaptiveInput()
    binarizer.alpha.data.fill_(0.5)
    binarizer.beta.data.fill_(0.25)
    adabin = levels_of(binarizer)
    assert (adabin.radius, adabin.centre) == ((0.5,), 0.25)
    assert torch.equal(adabin.threshold, torch.full((1, CHANNELS), 0.25))


def test_a_falling_channel_is_turned_round_and_a_constant_one_has_an_infinite_threshold() -> None:
    levels = levels_of(SteSign(), norm())
    assert levels.falling.tolist() == [False, True, False, False, False, False]
    # gain 0: the sign is that of the bias, for every x
    assert levels.threshold[0].isinf().tolist() == [False, False, True, False, False, False]


def test_several_thresholds_are_planes() -> None:
    binarizer = randomized(MultiSign(CHANNELS, thresholds=3))
    levels = levels_of(binarizer)
    assert torch.equal(levels.threshold, -binarizer.b.detach())
    assert levels.radius == tuple(binarizer.factors().tolist())


class Mean(nn.Module):
    """A sign that depends on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return SteSign()(x - x.mean((0, 2, 3), keepdim=True))


class Band(nn.Module):
    """Upper between two thresholds."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() < 1, 1.0, -1.0)


class EachItsOwn(nn.Module):
    """Other values for each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return SteSign()(x) * torch.arange(1, CHANNELS + 1).view(-1, 1, 1)


@pytest.mark.parametrize("binarizer", [nn.Tanh(), nn.Identity(), Mean(), Band(), EachItsOwn()])
def test_what_is_no_threshold_is_named(binarizer: nn.Module) -> None:
    layer = layer_with(binarizer)
    name = type(binarizer).__name__
    expected = f"{name} is no comparison with one threshold a channel"
    assert read_input(layer, Window.of(layer), None) == expected


def weight_levels(layer: Any) -> WeightLevels:
    found = read_weight(layer, Window.of(layer))
    assert isinstance(found, WeightLevels)
    return found


@pytest.mark.parametrize(
    "binarizer", [SteSign(), ScaledSign(), AdaptiveWeight(), LayerScaledSign(), LibraWeight()]
)
@pytest.mark.parametrize("kind", ["conv", "linear", "transposed"])
def test_a_binary_weight_is_centre_and_scale_and_signs(binarizer: Any, kind: str) -> None:
    torch.manual_seed(0)
    if kind == "conv":
        layer: Any = BinaryConv2d.from_float(nn.Conv2d(8, 6, 3, groups=2), weight_binarizer=binarizer)
    elif kind == "linear":
        layer = BinaryLinear.from_float(nn.Linear(8, 6), weight_binarizer=binarizer)
    else:
        binarizer.axis = 1
        layer = BinaryConvTranspose2d.from_float(nn.ConvTranspose2d(8, 6, 3), weight_binarizer=binarizer)
    binarizer_result = layer.weight_binarizer(layer.weight).detach()
    window, found = Window.of(layer), weight_levels(layer)
    rows = (-1, *[1] * (found.lower.dim() - 1))
    signs = 1 - 2 * found.lower.double()
    rebuilt = found.centre.view(rows) + found.scale.view(rows) * signs
    expected = window.filters_first(binarizer_result).double()
    torch.testing.assert_close(rebuilt, expected, rtol=1e-6, atol=0)
    binarizer.axis = 0


def test_a_large_linear_weight_is_read_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BinaryLinear.from_float(nn.Linear(10, 7), weight_binarizer=AdaptiveWeight())
    whole = weight_levels(layer)
    monkeypatch.setattr("binarize.packed.levels._SLICE", 25)
    sliced = weight_levels(layer)
    for name in ("lower", "scale", "centre"):
        assert torch.equal(getattr(whole, name), getattr(sliced, name))


@pytest.mark.parametrize(
    ("value", "scale", "lower"), [(2.0, 2.0, False), (-3.0, 3.0, True), (0.0, 0.0, False)]
)
def test_a_filter_of_one_value_is_a_sign_and_a_size(value: float, scale: float, lower: bool) -> None:
    layer = BinaryLinear.from_float(nn.Linear(4, 2), weight_binarizer=nn.Identity())
    layer.weight.data.fill_(value)
    found = weight_levels(layer)
    assert (found.scale.tolist(), found.centre.tolist()) == ([scale] * 2, [0.0] * 2)
    assert bool((found.lower == lower).all())


@pytest.mark.parametrize("content", [[1.0, 2.0, 3.0], [1.0, float("nan"), -1.0]])
def test_a_weight_of_more_than_two_values_is_named(content: list[float]) -> None:
    layer = BinaryLinear.from_float(nn.Linear(3, 1), weight_binarizer=nn.Identity())
    layer.weight.data.copy_(torch.tensor([content]))
    assert read_weight(layer, Window.of(layer)) == "Identity gives a filter more than two values"


def test_a_threshold_that_follows_the_tokens_of_its_sample_is_none() -> None:
    linear = nn.Linear(4, 4)
    part = InstanceSign(4, channel_dim=-1)
    layer = BinaryLinear.from_float(linear, weight_binarizer=SteSign(), input_binarizer=part).eval()
    assert not isinstance(freeze_layer(layer), str)  # it does not follow yet
    part.follow.data.fill_(0.5)
    assert freeze_layer(layer) == "InstanceSign is no comparison with one threshold a channel"
