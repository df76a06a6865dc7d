"""What is put in front of layers that stay float, and projections that become binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from plans import plan_of
from torch import Tensor, nn

import binarize
from binarize.planning.record.edit_kinds import Precede
from binarize.rules.load import load_rule_set


def rules(**scheme: Any) -> dict[str, Any]:
    return {"schema": 1, "name": "bireal", "extends": "bireal", "scheme": scheme}


def fronts(net: nn.Module, said: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], int]]:
    plan = plan_of(net, load_rule_set(rules=said))
    return {edit.layer: (edit.pool, edit.norm) for edit in plan.edits if isinstance(edit, Precede)}


def test_a_strided_projection_is_pooled_and_a_pooled_head_normed() -> None:
    said = rules(downsample="pool", head_norm="missing")
    found = fronts(nets.BasicBlocks(), said)
    assert found == {"blocks.1.downsample.0": ((2, 2), 0), "head.fc": ((), 32)}
    decisions = plan_of(nets.BasicBlocks(), load_rule_set(rules=said)).decisions
    kept = {d.layer.name: (d.shortcut, d.norm, d.extra_params) for d in decisions if not d.binary}
    assert kept["blocks.1.downsample.0"] == ("avgpool2 in front", "none", 0)
    assert kept["head.fc"] == ("none", "added BatchNorm1d in front", 64)


def test_the_pooled_projection_averages_what_the_stride_skipped() -> None:
    model: Any = binarize.convert(
        nets.seeded(nets.BasicBlocks),
        rules=rules(downsample="pool"),
        example_input=nets.pictures(),
        calibrate=False,
    )
    projection = model.blocks[1].downsample
    assert [*dict(projection.named_children())] == ["0", "1", "pool"]
    x = torch.randn(2, 16, 7, 6)
    averages = nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    expected = projection[1](nn.functional.conv2d(averages, projection[0].weight))
    assert expected.shape[2:] == (4, 3)
    torch.testing.assert_close(projection(x), expected, rtol=0, atol=0)


class Flat(nets.Body):
    """Its classifier reads every position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nets.conv(), nn.BatchNorm2d(16), nn.ReLU()
        self.fc = nn.Linear(16 * 16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.bn(self.conv(self.stem(x)))).flatten(1))


class Normed(nets.Body):
    """Its features are normed already."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nets.conv(), nn.BatchNorm2d(16)

    def run(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


@pytest.mark.parametrize("net", [Flat, Normed])
def test_a_head_needs_no_norm_where_one_is_or_it_reads_positions(net: type[nets.Net]) -> None:
    assert fronts(net(), rules(head_norm="missing")) == {}


def test_binary_projections_leave_what_was_named_by_hand_alone() -> None:
    said = rules(downsample="binary")
    plan = plan_of(nets.BasicBlocks(), load_rule_set(rules=said))
    assert plan["blocks.1.downsample.0"].binary
    kept = plan_of(nets.BasicBlocks(), load_rule_set(rules=said, keep=["blocks.1.downsample.0"]))
    assert not kept["blocks.1.downsample.0"].binary


class Closed(nets.Net):
    """A head whose code looks at numbers, so that nothing can be put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nets.conv(3, 16), nets.conv(), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x).flatten(1)
        return self.fc(y) if y.shape[0] > 0 and float(y.sum()) < 1e9 else y


def test_what_cannot_be_edited_stays_and_the_reason_is_told() -> None:
    plan = plan_of(Closed(), load_rule_set(rules=rules(head_norm="missing", last_activation="replace")))
    assert not any(isinstance(edit, Precede) for edit in plan.edits)
    assert plan["fc"].norm == "none"


def test_fronts_are_saved_packed_and_fused(tmp_path: Path) -> None:
    images = nets.pictures()
    model = binarize.convert(
        nets.seeded(nets.BasicBlocks),
        rules=rules(downsample="pool", head_norm="missing", last_activation="replace"),
        example_input=images,
        calibrate=False,
    ).eval()
    binarize.save(model, tmp_path / "saved")
    with torch.no_grad():
        expected = model(images)
        again = binarize.load(tmp_path / "saved", model=nets.seeded(nets.BasicBlocks)).eval()
        assert torch.equal(again(images), expected)
        binarize.pack(again, tmp_path / "one.safetensors")
        packed = binarize.load_packed(tmp_path / "one.safetensors")
        torch.testing.assert_close(packed(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(binarize.fuse(packed, images)(images), expected, rtol=1e-4, atol=1e-4)
