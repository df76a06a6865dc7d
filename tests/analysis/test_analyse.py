"""The facts about each layer, against counts made by hand."""

from __future__ import annotations

from dataclasses import fields

import nets
import pytest
import torch
from torch import nn

from binarize.analysis.analyse import Analysis, analyse
from binarize.analysis.layer import Layer
from binarize.capture import capture


def analysis_of(model: nn.Module, shape: tuple[int, ...] | None = None) -> Analysis:
    if shape is not None:
        return analyse(capture(model, (torch.empty(shape),)))
    assert isinstance(model, nets.Net)
    return analyse(capture(model, model.arguments(), model.keywords()))


def layers_of(model: nn.Module, shape: tuple[int, ...] | None = None) -> dict[str, Layer]:
    return {layer.name: layer for layer in analysis_of(model, shape).layers}


def test_facts_of_a_convolution() -> None:
    layer = layers_of(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, (1, 3), 2, groups=4), nn.ReLU()
        ),
        (5, 3, 9, 9),
    )["2"]
    found = {f.name: getattr(layer, f.name) for f in fields(layer)}
    expected = {
        "type": "Conv2d", "kind": "conv", "order": 1, "kernel": (1, 3), "stride": (2, 2), "padding": (0, 0),
        "dilation": (1, 1), "groups": 4, "in_channels": 16, "out_channels": 8, "in_shape": (5, 16, 9, 9),
        "out_shape": (5, 8, 5, 4), "params": 8 * 4 * 3 + 8, "weights": 8 * 4 * 3, "bias": True,
        # Each of 5 x 4 positions meets every weight, whatever the batch.
        "macs": 5 * 4 * 8 * 4 * 3, "position": "last", "skip": "none", "input_sign": "nonneg", "preceded_by": ("ReLU",),
        "followed_by": ("ReLU",), "norm_after": None, "inside": ("Sequential",), "calls": 1, "obstacle": None,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    "layer, shape, macs",
    [
        (nn.Linear(6, 4), (3, 6), 24),
        # A token each: 5 of them a sample.
        (nn.Linear(6, 4), (3, 5, 6), 5 * 24),
        (nn.Conv1d(2, 4, 3), (3, 2, 7), 5 * 4 * 2 * 3),
        (nn.Conv3d(2, 4, 3, padding=1), (3, 2, 4, 4, 4), 64 * 4 * 2 * 27),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1), (3, 4, 6, 6), 36 * 4 * 9),
        (nn.ConvTranspose2d(4, 2, 2, 2), (3, 4, 6, 6), 36 * 4 * 2 * 4),
    ],
)
def test_macs_are_multiplications_of_one_sample(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert layers_of(nn.Sequential(layer), shape)["0"].macs == macs


def test_a_layer_called_twice_works_twice() -> None:
    found = layers_of(nets.CalledTwice())["conv"]
    assert (found.calls, found.macs) == (2, 2 * 16 * 16 * 16 * 16 * 9)


def test_layers_come_in_execution_order_not_in_that_of_registration() -> None:
    assert list(layers_of(nets.BasicBlocks())) == [
        "stem", "blocks.0.conv1", "blocks.0.conv2", "blocks.1.conv1", "blocks.1.conv2", "blocks.1.downsample.0", "head.fc",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "net, skips",
    [
        (nets.ConvRelu, {"none"}),
        (nets.BasicBlocks, {"none", "enclosing"}),
        (nets.Dense, {"none", "concat"}),
    ],
)
def test_skip_tells_what_goes_around_a_layer(net: type[nets.Net], skips: set[str]) -> None:
    assert {layer.skip for layer in layers_of(net()).values()} == skips


def test_spans_gates_and_projections_are_facts() -> None:
    blocks = layers_of(nets.BasicBlocks())
    assert [blocks[f"blocks.1.{name}"].span for name in ("conv1", "conv2", "downsample.0")] == [2, 2, 0]
    assert [name for name, layer in blocks.items() if layer.downsample] == ["blocks.1.downsample.0"]
    assert [name for name, layer in layers_of(nets.SqueezeExcite()).items() if layer.gate] == [
        "reduce",
        "expand",
    ]


def test_the_norm_is_found_behind_pooling_and_reshapes_but_not_behind_an_activation() -> None:
    assert layers_of(nets.ConvPoolBn())["layers.1"].norm_after == "layers.3"
    assert layers_of(nets.FunctionalNorm())["conv2"].norm_after == "F.batch_norm"
    assert layers_of(nets.FunctionalNorm())["conv1"].norm_after is None
    assert layers_of(nets.NormActivation())["conv1"].norm_after == "bn1"


@pytest.mark.parametrize(
    "net, layer, obstacle",
    [
        (nets.Subclasses, "standardized", "nets.StandardizedConv has a forward of its own"),
        (
            nets.FunctionalConv,
            "filters",
            "a functional call uses its weight, which no swap of modules reaches",
        ),
    ],
)
def test_what_forbids_a_binary_layer_is_said(net: type[nets.Net], layer: str, obstacle: str) -> None:
    assert layers_of(net())[layer].obstacle == obstacle


def test_nothing_stands_in_the_way_of_plain_layers() -> None:
    for net in (nets.ConvRelu, nets.Tied, nets.Parametrized):
        assert all(layer.obstacle is None for layer in layers_of(net()).values())


def test_a_subclass_with_torchs_forward_is_no_obstacle() -> None:
    layer = layers_of(nets.Subclasses())["named"]
    assert (layer.type, layer.bases, layer.obstacle) == (
        "NamedConv",
        ("NamedConv", "Conv2d", "_ConvNd"),
        None,
    )


@pytest.mark.parametrize(
    "module, shape, kind",
    [
        (nn.LSTM(8, 4, batch_first=True), (2, 3, 8), "recurrent"),
        (nn.LSTMCell(8, 4), (3, 8), "recurrent"),
    ],
)
def test_layers_without_a_binary_form_are_listed_with_their_kind(
    module: nn.Module, shape: tuple[int, ...], kind: str
) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)[0]

    (layer,) = layers_of(Reading(), shape).values()
    assert (layer.name, layer.kind) == ("inner", kind)
    assert layer.obstacle == f"there is no binary {type(module).__name__}"


def test_layers_that_only_training_reaches_count_no_work() -> None:
    found = layers_of(nets.AuxiliaryHead())
    assert (found["aux_conv"].calls, found["aux_conv"].macs) == (0, 0)
    assert found["aux.fc"].position == "last"


def test_layers_that_nothing_reaches_are_listed_last_with_the_reason() -> None:
    model = nets.ConvRelu()
    model.spare = nn.Linear(4, 4)
    found = layers_of(model)
    assert list(found)[-1] == "spare"
    assert found["spare"].obstacle == "not reached by the forward pass on the example"
    assert (found["spare"].calls, found["spare"].params) == (0, 20)


def test_layers_inside_one_operation_say_so() -> None:
    class Gated(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(8, 8, 1)
            self.gate = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.gate(x.mean((2, 3)))[..., None, None]

    found = layers_of(nn.Sequential(Gated(), nn.Conv2d(8, 8, 1)), (2, 8, 3, 3))
    assert list(found) == ["0", "1", "0.gate"]
    assert found["0.gate"].obstacle == "part of 0, a Gated, which is one operation"


def test_one_layer_under_two_names_is_one_layer() -> None:
    found = layers_of(nets.TwoNames())
    assert list(found) == ["stem", "conv1", "head.fc"]
    assert found["conv1"].calls == 2


def test_layer_can_be_made_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, binarize.analysis as a; a.Layer('x', 'Conv2d', 'conv', 0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
