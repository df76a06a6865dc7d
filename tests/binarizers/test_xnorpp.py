from __future__ import annotations

import nets
import pytest
import torch

import binarize
from binarize.binarizers.xnorpp import ChannelScale, MapScale
from binarize.errors import UsageError
from binarize.packed.freeze import frozen_record


def test_scale_multiplies_its_channel_and_gathers_its_gradient():
    y = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    scale = ChannelScale(2)
    with torch.no_grad():
        scale.s.copy_(torch.tensor([2.0, -1.0]))
    out = scale(y)
    out.sum().backward()
    assert out.tolist() == [[[2, 4], [-3, -4]]]
    assert scale.s.grad.tolist() == [3, 7]


def test_channels_may_be_the_last_axis():
    scale = ChannelScale(2, channel_dim=-1, start=3.0)
    assert scale(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist() == [[[3, 6], [9, 12]]]


@pytest.mark.parametrize(
    "shape, shapes",
    [
        ("dense", [(3, 4, 5)]),
        ("planes", [(3, 1, 1), (1, 4, 5)]),
        ("axes", [(3, 1, 1), (1, 4, 1), (1, 1, 5)]),
    ],
)
def test_the_papers_shapes_are_products_of_their_factors(shape, shapes):
    scale = MapScale(3, shape=shape, height=4, width=5)
    assert [tuple(factor.shape) for factor in scale.factors] == shapes
    y = torch.randn(2, 3, 4, 5)
    assert torch.equal(scale(y), y)
    expected = y
    with torch.no_grad():
        for factor in scale.factors:
            factor.normal_()
            expected = expected * factor
    assert torch.equal(scale(y), expected)
    with pytest.raises(UsageError, match="its factors are for"):
        scale(torch.randn(2, 3, 5, 5))


def test_without_positions_a_map_is_a_factor_a_channel():
    scale = MapScale(2, channel_dim=-1, height=1, width=1)
    with torch.no_grad():
        scale.factors[0].copy_(torch.tensor([2.0, -1.0]))
    assert scale(torch.ones(1, 3, 2)).tolist() == [[[2, -1]] * 3]


@pytest.mark.parametrize("shape", ["dense", "planes", "axes"])
def test_a_converted_layer_has_factors_for_its_output_and_comes_back(shape, tmp_path):
    rules = {
        "schema": 1,
        "name": "maps",
        "extends": "xnorpp",
        "scheme": {"scale": {"part": "xnorpp.MapScale", "shape": shape}},
    }
    images = nets.pictures(4)
    model = binarize.convert(nets.seeded(nets.ConvRelu), rules=rules, example_input=images, calibrate=False)
    sizes = [module.size for module in model.modules() if isinstance(module, MapScale)]
    assert sizes == [(16, 16), (8, 8), (), ()]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MapScale):
                [factor.uniform_(0.5, 1.5) for factor in module.factors]
        binarize.save(model, tmp_path / "maps")
        again = binarize.load(tmp_path / "maps", model=nets.ConvRelu()).eval()
        assert torch.equal(again(images), model.eval()(images))
        frozen = binarize.freeze(model, images)
        kept = frozen_record(frozen).kept
        assert set(kept) == {"features.2", "features.5"}
        assert set(kept.values()) == {"MapScale is no factor per channel"}
        torch.testing.assert_close(frozen(images), model(images), rtol=1e-4, atol=1e-4)
