"""Window attention that calls its projections computes what torchvision's function does."""

from __future__ import annotations

import copy
from pathlib import Path

import nets
import pytest
import torch
from torch import nn
from torchvision.models import swin_transformer
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

import binarize
from binarize.attention.explicit import make_explicit
from binarize.attention.multihead import Explicit
from binarize.layers.linear import BinaryLinear

KINDS = [ShiftedWindowAttention, ShiftedWindowAttentionV2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window, shift", [((4, 4), (0, 0)), ((4, 4), (2, 2)), ((3, 5), (1, 2))])
# An image of whole windows, one that is padded, one that a window covers along one axis.
@pytest.mark.parametrize("size", [(12, 20), (7, 9), (4, 9), (3, 4)])
def test_it_computes_what_torchvision_does(
    kind: type[ShiftedWindowAttention], window: tuple[int, int], shift: tuple[int, int], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    given = kind(8, list(window), list(shift), 2).eval()
    nn.init.normal_(given.qkv.bias)
    if kind is ShiftedWindowAttention:
        nn.init.normal_(given.relative_position_bias_table)
    explicit = copy.deepcopy(given)
    make_explicit(explicit)
    assert isinstance(explicit, Explicit) and isinstance(explicit, kind)
    x = torch.randn(2, *size, 8)
    torch.testing.assert_close(explicit(x), given(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_every_projection_of_swin_becomes_binary(version: int, tmp_path: Path) -> None:
    options = {}
    if version == 2:
        options = {
            "block": swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": swin_transformer.PatchMergingV2,
        }
    torch.manual_seed(0)
    model = swin_transformer.SwinTransformer(
        [4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=10, stochastic_depth_prob=0.0, **options
    ).eval()
    x = nets.pictures(2, 32)
    converted = binarize.convert(model, "bnn", example_input=x).eval()
    found = [part for part in converted.modules() if isinstance(part, ShiftedWindowAttention)]
    assert len(found) == 2
    assert all(type(layer) is BinaryLinear for part in found for layer in (part.qkv, part.proj))
    kinds = {type(part) for part in model.modules() if isinstance(part, ShiftedWindowAttention)}
    assert kinds == {KINDS[version - 1]}
    row = binarize.plan(model, "bnn", example_input=x)["features.1.0.attn.qkv"].layer
    assert row.inside[-1] == KINDS[version - 1].__name__
    with torch.no_grad():
        expected = converted(x)
        folder = binarize.save(converted, tmp_path / "swin")
        assert torch.equal(binarize.load(folder, model=model).eval()(x), expected)
        binarize.pack(folder, model=model)
        assert torch.equal(binarize.load_packed(folder, model=model)(x), binarize.freeze(converted)(x))
