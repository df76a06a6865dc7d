"""The statistics a new norm starts with, and the mean behind a norm of the float model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.binarizers.bnn import SteSign
from binarize.layers import BinaryConv2d, BinaryConvTranspose2d, BinaryLinear
from binarize.passes.norm import mean_behind, new_norm, start_variance


@pytest.mark.parametrize(
    "name, cls",
    [
        ("BatchNorm1d", nn.BatchNorm1d),
        ("BatchNorm2d", nn.BatchNorm2d),
        ("BatchNorm3d", nn.BatchNorm3d),
        ("LayerNorm", nn.LayerNorm),
    ],
)
def test_a_new_norm_is_torchs_own(name: str, cls: type[nn.Module]) -> None:
    assert type(new_norm(name, 4)) is cls


@pytest.mark.parametrize(
    "layer, terms",
    [
        (nn.Conv2d(16, 8, 3, padding=1), 16 * 9),
        (nn.Conv2d(16, 8, 3, padding=1, groups=4), 4 * 9),
        (nn.Linear(64, 8), 64),
    ],
)
def test_the_running_variance_is_that_of_independent_signs(layer: nn.Module, terms: int) -> None:
    """A sum of n signs has variance n: outputs of unit size before any image has been seen."""
    cls = BinaryLinear if isinstance(layer, nn.Linear) else BinaryConv2d
    norm: nn.Module = nn.BatchNorm1d(8) if cls is BinaryLinear else nn.BatchNorm2d(8)
    new = cls.from_float(layer, weight_binarizer=SteSign(), input_binarizer=SteSign(), norm=norm)
    start_variance(new, norm)
    assert torch.equal(norm.running_var, torch.full((8,), float(terms)))


def test_a_transposed_convolution_counts_its_own_axis() -> None:
    layer, norm = nn.ConvTranspose2d(16, 8, 2, 2), nn.BatchNorm2d(8)
    new = BinaryConvTranspose2d.from_float(
        layer, weight_binarizer=SteSign(), input_binarizer=SteSign(), norm=norm
    )
    start_variance(new, norm)
    assert torch.equal(norm.running_var, torch.full((8,), 16.0 * 4))


@pytest.mark.parametrize(
    "name, function",
    [
        ("", lambda x: x),
        ("relu", F.relu),
        ("relu6", F.relu6),
        ("silu", F.silu),
        ("gelu", F.gelu),
        ("hardswish", F.hardswish),
        ("sigmoid", torch.sigmoid),
    ],
)
@pytest.mark.parametrize("window", [1, 9])
def test_the_mean_behind_a_norm_is_that_of_normal_values(
    name: str, function: Callable[[Tensor], Tensor], window: int
) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 2.0]))
        norm.weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
    draws = torch.randn(20_000, window, 3) * norm.weight + norm.bias
    expected = function(draws).amax(1).mean(0)
    found = mean_behind(norm, name, window)
    assert found is not None
    # 64 quantiles cut the tails off; 20,000 draws have an error of 0.01.
    torch.testing.assert_close(found, expected.detach(), rtol=0.02, atol=0.06)


def test_a_norm_without_numbers_or_an_unknown_activation_has_no_known_mean() -> None:
    assert mean_behind(nn.BatchNorm2d(3, affine=False), "relu") is None
    assert mean_behind(nn.BatchNorm2d(3), "tanhshrink") is None
