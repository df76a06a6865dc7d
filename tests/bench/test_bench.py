"""What `binarize bench` reports: every form is there, and the shares are of the same whole."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import binarize
from binarize.bench import rivals
from binarize.bench.bench import bench
from binarize.bench.timing import interleaved, peak_bytes
from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.cli import app
from binarize.errors import UsageError
from binarize.layers.conv import BinaryConv2d
from binarize.packed.freeze import freeze, pack_layers


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 5),
    )  # fmt: skip


def test_the_whole_the_layers_and_the_glue():
    torch.manual_seed(0)
    float_model, x = net(), torch.randn(1, 3, 8, 8)
    model = binarize.convert(float_model, "bireal", example_input=x)
    found = bench(model, float_model, x, rounds=3)
    assert {"float32", "bfloat16", "packed", "packed, fused"} <= found.seconds.keys()
    assert [layer.name for layer in found.layers] == ["3"] and found.layers[0].shape == (1, 32, 6, 6)
    assert min(found.seconds.values()) > 0 and min(found.layers[0].seconds.values()) > 0
    assert [step.glue for step in found.steps if step.what == "FusedConv"] == [False]
    assert 0 < found.glue < 1
    # 32 filters of 288 signs take 1,152 bytes and no more than 8 bytes a filter beside them.
    saved = found.sizes["float32"] - found.sizes["packed"]
    assert saved >= 32 * 288 * 4 - 1152 - 32 * 8
    json.dumps(found.to_json(), allow_nan=False)


def test_a_model_without_a_packed_layer_is_refused():
    model = nn.Sequential(
        binary := BinaryConv2d.from_float(nn.Conv2d(3, 4, 3), weight_binarizer=nn.Identity())
    )
    assert binary is model[0]
    with pytest.raises(UsageError, match="no layer of the model can be packed"):
        bench(model, nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8), rounds=3)


def test_contenders_run_in_turn():
    order: list[str] = []
    interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, seconds=0)
    text = "".join(order)
    assert text.startswith("aabb") and text[4:].replace("aa", "a").count("ab") >= 3


def test_peak_counts_what_lives_at_once():
    def run() -> None:
        first = torch.empty(1000, dtype=torch.float32)
        second = torch.empty(500, dtype=torch.float32)
        del first
        torch.empty(250, dtype=torch.float32)
        del second

    assert peak_bytes(run) == pytest.approx(6000, abs=200)


def test_openvino_gives_the_sums_of_our_kernels():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    conv = nn.Conv2d(40, 24, 3, 2, 1, bias=False)
    layer = BinaryConv2d.from_float(conv, weight_binarizer=ScaledSign(), input_binarizer=ApproxSign())
    packed = pack_layers(freeze(nn.Sequential(layer)))[0]
    x = torch.randn(1, 40, 9, 9)
    run = rivals.openvino_binary(packed, x, 1)
    assert run is not None
    sums = torch.from_numpy(next(iter(run().values())))
    torch.testing.assert_close(sums * packed.scale.view(1, -1, 1, 1), packed(x), rtol=1e-6, atol=1e-5)


def test_openvino_is_not_timed_where_its_sums_are_wrong():
    pytest.importorskip("openvino")
    conv = nn.Conv2d(12, 24, 3, padding=1, bias=False)
    layer = BinaryConv2d.from_float(conv, weight_binarizer=ScaledSign(), input_binarizer=ApproxSign())
    packed = pack_layers(freeze(nn.Sequential(layer)))[0]
    assert rivals.openvino_binary(packed, torch.randn(1, 12, 9, 9), 1) is None


def test_what_a_contender_cannot_do_is_told_with_the_reason():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x

    reasons: dict[str, str] = {}
    assert rivals.int8(Odd(), torch.ones(1, 3, 4, 4), reasons) is None
    assert list(reasons) == ["int8"] and "TraceError" in reasons["int8"]


def test_the_command_prints_tables_and_json(tmp_path):
    torch.manual_seed(0)
    model = binarize.convert(net(), "bireal", example_input=torch.randn(1, 3, 8, 8))
    binarize.save(model, tmp_path / "net")
    options = ["bench", str(tmp_path / "net"), "--rounds", "3"]
    shown = CliRunner().invoke(app, [*options, "--plain"])
    assert shown.exit_code == 0, shown.output
    assert "whole model" in shown.output and "Float glue" in shown.output
    data = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    assert data["threads"] == 1 and data["layers"][0]["name"] == "3"
