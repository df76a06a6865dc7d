from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from binarize.errors import UsageError
from binarize.layers.shortcuts import ShortcutSpec, plan_shortcut

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("in_shape", "out_shape", "stride", "kind"),
    [
        ((1, 64, 56, 56), (1, 64, 56, 56), (1, 1), "identity"),
        ((1, 64, 56, 56), (1, 128, 28, 28), (2, 2), "avgpool2+repeat2"),
        ((1, 64, 57, 57), (1, 64, 29, 29), (2, 2), "avgpool2"),
        ((1, 64, 8, 8), (1, 192, 8, 8), (1, 1), "repeat3"),
        ((1, 64, 8, 8), (1, 16, 8, 8), (1, 1), "mean4"),
        ((1, 64, 8, 8), (1, 32, 4, 8), (2, 1), "avgpool2x1+mean2"),
        ((1, 8, 1, 1), (1, 8, 1, 1), (2, 2), "identity"),
        ((1, 8, 5, 1), (1, 8, 3, 1), (2, 2), "avgpool2x1"),
        ((1, 8, 16), (1, 8, 8), (2,), "avgpool2"),
        ((1, 3, 8, 8, 8), (1, 6, 4, 4, 4), (2, 2, 2), "avgpool2+repeat2"),
        ((4, 512), (4, 512), (), "identity"),
        ((4, 512), (4, 1024), (), "repeat2"),
    ],
)
def test_shortcut_leads_from_one_shape_to_the_other(in_shape, out_shape, stride, kind):
    spec = plan_shortcut(in_shape, out_shape, stride)
    assert isinstance(spec, ShortcutSpec)
    assert spec.kind == kind
    module = spec.build(in_shape[1], out_shape[1], len(in_shape) - 2)
    assert module(torch.randn(in_shape)).shape == out_shape
    assert not list(module.parameters())


@pytest.mark.parametrize(
    ("in_shape", "out_shape", "stride", "reason"),
    [
        (
            (1, 8, 32, 32),
            (1, 8, 30, 30),
            (1, 1),
            "the size changes from 32 to 30, which stride 1 does not explain",
        ),
        (
            (1, 8, 32, 32),
            (1, 8, 15, 15),
            (2, 2),
            "the size changes from 32 to 15, which stride 2 does not explain",
        ),
        (
            (1, 8, 8, 8),
            (1, 8, 16, 16),
            (2, 2),
            "the size changes from 8 to 16, which stride 2 does not explain",
        ),
        ((1, 8, 8, 8), (1, 12, 8, 8), (1, 1), "8 channels cannot be repeated or averaged to 12"),
        ((1, 8, 4, 4), (1, 128), (), "input 1x8x4x4 and output 1x128 have different axes"),
    ],
)
def test_no_shortcut_has_its_reason(in_shape, out_shape, stride, reason):
    assert plan_shortcut(in_shape, out_shape, stride) == reason


def test_tokens_have_their_channels_last():
    spec = plan_shortcut((2, 197, 192), (2, 197, 384), (), channel_dim=-1)
    assert spec == ShortcutSpec(repeat=2)
    x = torch.randn(2, 197, 192)
    assert torch.equal(spec.build(192, 384, 0)(x), torch.cat([x, x], -1))
    assert isinstance(plan_shortcut((2, 197, 192), (2, 196, 192), (), channel_dim=-1), str)


def test_projection_carries_every_change_of_channels():
    spec = plan_shortcut((1, 8, 8, 8), (1, 12, 4, 4), (2, 2), projection="conv1x1")
    assert spec == ShortcutSpec(pool=(2, 2), conv=True)
    assert spec.kind == "avgpool2+conv1x1"
    module = spec.build(8, 12, 2)
    assert module(torch.randn(2, 8, 8, 8)).shape == (2, 12, 4, 4)
    assert sum(p.numel() for p in module.parameters()) == spec.params(8, 12)
    tokens = spec.__class__(conv=True).build(8, 12, 0)
    assert tokens(torch.randn(2, 5, 8)).shape == (2, 5, 12)
    assert sum(p.numel() for p in tokens.parameters()) == spec.params(8, 12)
    same = plan_shortcut((1, 8, 8, 8), (1, 8, 8, 8), (1, 1), projection="conv1x1")
    assert same == ShortcutSpec()


def test_a_factor_per_channel_starts_at_one_and_is_the_last_step():
    spec = plan_shortcut((1, 8, 8, 8), (1, 16, 4, 4), (2, 2), scale="channel")
    assert spec == ShortcutSpec(pool=(2, 2), repeat=2, scale=True)
    assert spec.kind == "avgpool2+repeat2+scale" and ShortcutSpec(scale=True).kind == "identity+scale"
    module, plain = spec.build(8, 16, 2), ShortcutSpec(pool=(2, 2), repeat=2).build(8, 16, 2)
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(module(x), plain(x))
    (factor,) = module.parameters()
    assert factor.numel() == spec.params(8, 16) == 16
    with torch.no_grad():
        factor[3] = -2
    assert torch.equal(module(x)[:, 3], -2 * plain(x)[:, 3])


def test_a_spec_that_was_saved_before_there_were_factors_has_none():
    assert ShortcutSpec.from_json({"pool": [2], "repeat": 1, "mean": 1, "conv": False}) == ShortcutSpec((2,))


def test_average_does_not_count_what_lies_outside():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    y = ShortcutSpec(pool=(2, 2)).build(1, 1, 2)(x)
    assert y.tolist() == [[[[2.0, 3.5], [6.5, 8.0]]]]


def test_identity_adds_nothing():
    assert isinstance(ShortcutSpec().build(3, 3, 2), nn.Identity)
    pool = ShortcutSpec(pool=(2, 2)).build(3, 3, 2)
    x = torch.randn(1, 3, 7, 7)
    assert torch.equal(pool(x), F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))


def test_wrong_channels_are_refused():
    with pytest.raises(UsageError, match="shortcut repeat2: cannot lead 8 channels to 8"):
        ShortcutSpec(repeat=2).build(8, 8, 2)


@pytest.mark.parametrize(
    "spec",
    [
        ShortcutSpec(),
        ShortcutSpec(pool=(2, 1), repeat=2),
        ShortcutSpec(mean=3, conv=True),
        ShortcutSpec(scale=True),
    ],
)
def test_spec_survives_json(spec):
    assert ShortcutSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_planning_needs_no_torch():
    code = "import sys, binarize.shortcuts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
