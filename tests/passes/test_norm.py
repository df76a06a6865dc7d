"""New norms, and the statistics they start with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.binarizers.bnn import SteSign
from binarize.layers.conv import BinaryConv2d, BinaryConvTranspose2d
from binarize.layers.linear import BinaryLinear
from binarize.passes.norm import new_norm, start_variance


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
