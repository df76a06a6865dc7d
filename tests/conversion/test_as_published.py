"""The networks of `_paper` schemes, block by block, beside those of the authors' code, written down by hand.

Sources, read and not copied: liuzechun/Bi-Real-net (pytorch_implementation), liuzechun/ReActNet (resnet/2_step2),
huawei-noah/Efficient-Computing (BinaryNetworks/AdaBin), htqin/IR-Net, Alexrich961210/IE-Net, allenai/XNOR-Net.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
import torchvision
from steps import steps
from torch import nn

import binarize
from binarize.layers.layer import BinaryLayer


class VggSmall(nn.Module):
    """The VGG-Small of the field, narrow: pooling before the norm, as in the code of IR-Net and IE-Net."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 8, 0), (8, 8, 1), (8, 16, 0), (16, 16, 1), (16, 32, 0), (32, 32, 1)]
        layers: list[nn.Module] = []
        for inputs, outputs, pooled in widths:
            layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
            layers += [nn.MaxPool2d(2)] if pooled else []
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).flatten(1))


FLOAT: dict[str, Any] = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "vgg_small": VggSmall,
}


@cache
def converted(name: str, scheme: str) -> nn.Module:
    torch.manual_seed(0)
    with torch.random.fork_rng():
        images = torch.randn(2, 3, 32, 32)
        return binarize.convert(FLOAT[name]().eval(), scheme, example_input=images, calibrate=False)


def text(lines: str) -> list[str]:
    return [line.strip() for line in lines.strip().splitlines()]


def block(nonlinearity: str) -> list[str]:
    """A block of two binary layers with a shortcut around each, the nonlinearity behind each add."""
    if not nonlinearity:
        return text("""
            conv1 = BinaryConv2d(x)
            bn1 = BatchNorm2d(conv1)
            add1 = bn1 + x
            conv2 = BinaryConv2d(add1)
            bn2 = BatchNorm2d(conv2)
            add2 = bn2 + add1
        """)
    return text(f"""
        conv1 = BinaryConv2d(x)
        bn1 = BatchNorm2d(conv1)
        add1 = bn1 + x
        conv1.activation = {nonlinearity}(add1)
        conv2 = BinaryConv2d(conv1.activation)
        bn2 = BatchNorm2d(conv2)
        add2 = bn2 + conv1.activation
        conv2.activation = {nonlinearity}(add2)
    """)


POOLED = text("""
    downsample.pool = AvgPool2d/2(x)
    downsample.0 = Conv2d(downsample.pool)
    downsample.1 = BatchNorm2d(downsample.0)
""")
STRIDED = text("""
    downsample.0 = Conv2d/2(x)
    downsample.1 = BatchNorm2d(downsample.0)
""")
# Scheme -> its nonlinearity, its projection, what follows the first layer, what stands in front of the classifier.
RESNETS: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "bireal_paper": (
        "",
        POOLED,
        ["bn1 = BatchNorm2d(conv1)", "maxpool = MaxPool2d/2(bn1)"],
        ["fc = Linear(avgpool)"],
    ),
    "reactnet_paper": (
        "RPReLU",
        POOLED,
        ["bn1 = BatchNorm2d(conv1)", "maxpool = MaxPool2d/2(bn1)"],
        ["fc = Linear(avgpool)"],
    ),
    "adabin_paper": (
        "Maxout",
        POOLED,
        ["bn1 = BatchNorm2d(conv1)", "relu = Maxout(bn1)", "maxpool = MaxPool2d/2(relu)"],
        ["head_norm = BatchNorm1d(avgpool)", "fc = Linear(head_norm)"],
    ),
    "irnet_paper": (
        "Hardtanh",
        STRIDED,
        ["bn1 = BatchNorm2d(conv1)", "relu = Hardtanh(bn1)", "maxpool = MaxPool2d/2(relu)"],
        ["head_norm = BatchNorm1d(avgpool)", "fc = Linear(head_norm)"],
    ),
}


@pytest.mark.parametrize("scheme", RESNETS)
def test_every_block_of_a_resnet18_is_that_of_the_authors(scheme: str) -> None:
    nonlinearity, projection, stem, head = RESNETS[scheme]
    model = converted("resnet18", scheme)
    plain = block(nonlinearity)
    for name in ("layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"):
        assert steps(model, name) == plain, name
    for name in ("layer2.0", "layer3.0", "layer4.0"):
        found = steps(model, name)
        assert [line for line in found if line.startswith("downsample")] == projection
        rest = [line for line in found if not line.startswith("downsample")]
        first = {
            "conv1 = BinaryConv2d(x)": "conv1 = BinaryConv2d/2(x)",
            "add1 = bn1 + x": "add1 = bn1 + downsample.1",
        }
        assert rest == [first.get(line, line) for line in plain]
    whole = steps(model)
    assert whole[0] == "conv1 = Conv2d/2(x)"
    assert whole[1 : len(stem) + 1] == stem
    assert whole[-len(head) :] == head


@pytest.mark.parametrize("scheme", ["adabin_paper", "irnet_paper", "ienet_paper"])
def test_a_vgg_has_no_shortcuts_where_the_authors_have_none(scheme: str) -> None:
    nonlinearity = "Hardtanh" if scheme == "ienet_paper" else RESNETS[scheme][0]
    found = steps(converted("vgg_small", scheme), "features")
    if scheme == "ienet_paper":  # nothing between the first norm and the first signs
        assert found[2] == "3 = BinaryConv2d(1)"
        found[2:3] = ["2 = Hardtanh(1)", "3 = BinaryConv2d(2)"]
    assert found == text(f"""
        0 = Conv2d(input_1)
        1 = BatchNorm2d(0)
        2 = {nonlinearity}(1)
        3 = BinaryConv2d(2)
        4 = MaxPool2d/2(3)
        5 = BatchNorm2d(4)
        6 = {nonlinearity}(5)
        7 = BinaryConv2d(6)
        8 = BatchNorm2d(7)
        9 = {nonlinearity}(8)
        10 = BinaryConv2d(9)
        11 = MaxPool2d/2(10)
        12 = BatchNorm2d(11)
        13 = {nonlinearity}(12)
        14 = BinaryConv2d(13)
        15 = BatchNorm2d(14)
        16 = {nonlinearity}(15)
        17 = BinaryConv2d(16)
        18 = MaxPool2d/2(17)
        19 = BatchNorm2d(18)
        20 = {nonlinearity}(19)
    """)
    assert steps(converted("vgg_small", scheme))[-1] == "fc = Linear(features.20)"


def test_bi_real_nets_bottlenecks_have_a_shortcut_around_each_convolution() -> None:
    """The first adds the narrow value of the block before; the authors have one where a stage begins too, by a float 1x1."""
    stage = steps(converted("resnet50", "bireal_paper"), "layer2")
    assert stage[:17] == text("""
        0.conv1 = BinaryConv2d(input_1)
        0.bn1 = BatchNorm2d(0.conv1)
        0.conv2 = BinaryConv2d/2(0.bn1)
        0.bn2 = BatchNorm2d(0.conv2)
        0.conv2.shortcut = AvgPool2d/2(0.bn1)
        add1 = 0.bn2 + 0.conv2.shortcut
        0.conv3 = BinaryConv2d(add1)
        0.bn3 = BatchNorm2d(0.conv3)
        0.downsample.pool = AvgPool2d/2(input_1)
        0.downsample.0 = Conv2d(0.downsample.pool)
        0.downsample.1 = BatchNorm2d(0.downsample.0)
        add2 = 0.bn3 + 0.downsample.1
        1.conv1 = BinaryConv2d(add2)
        1.bn1 = BatchNorm2d(1.conv1)
        add3 = 1.bn1 + add1
        1.conv2 = BinaryConv2d(add3)
        1.bn2 = BatchNorm2d(1.conv2)
    """)
    assert stage[17:22] == text("""
        add4 = 1.bn2 + add3
        1.conv3 = BinaryConv2d(add4)
        1.bn3 = BatchNorm2d(1.conv3)
        add5 = 1.bn3 + add2
        2.conv1 = BinaryConv2d(add5)
    """)
    assert "add6 = 2.bn1 + add4" in stage


def test_bottlenecks_that_reach_the_block_before_are_saved_and_frozen(tmp_path: Path) -> None:
    images = nets.pictures(4)
    model = binarize.convert(nets.seeded(nets.Bottlenecks), "bireal_paper", example_input=images).eval()
    assert "add4 = blocks.1.bn1 + add2" in steps(model)
    binarize.save(model, tmp_path / "net")
    with torch.no_grad():
        again = binarize.load(tmp_path / "net", model=nets.Bottlenecks()).eval()
        assert torch.equal(again(images), model(images))
        torch.testing.assert_close(
            binarize.freeze(model, images)(images), model(images), rtol=1e-4, atol=1e-4
        )


class Stopped(nets.Bottlenecks):
    """Its blocks are called in a way that no graph of both tells."""

    def run(self, x: torch.Tensor) -> torch.Tensor:
        x = self.widen(x)
        for block in self.blocks if float(x.sum()) > -1e30 else ():
            x = block(x)
        return x


def test_a_block_that_cannot_reach_the_one_before_has_its_other_shortcuts() -> None:
    images = nets.pictures(4)
    model: Any = binarize.convert(nets.seeded(Stopped), "bireal_paper", example_input=images)
    words = {d.layer.name: d.shortcut for d in model._binarize.plan.binarized}
    assert words["blocks.1.conv1"] == "none" and words["blocks.1.conv2"] == "identity"


def test_ienets_resnet_is_a_plain_one_with_binary_projections() -> None:
    model = converted("resnet18", "ienet_paper")
    plain = text("""
        conv1 = BinaryConv2d(x)
        bn1 = BatchNorm2d(conv1)
        conv1.activation = Hardtanh(bn1)
        conv2 = BinaryConv2d(conv1.activation)
        bn2 = BatchNorm2d(conv2)
        add1 = bn2 + x
        conv2.activation = Hardtanh(add1)
    """)
    for name in ("layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"):
        assert steps(model, name) == plain, name
    for name in ("layer2.0", "layer3.0", "layer4.0"):
        assert steps(model, name) == text("""
            conv1 = BinaryConv2d/2(x)
            bn1 = BatchNorm2d(conv1)
            conv1.activation = Hardtanh(bn1)
            conv2 = BinaryConv2d(conv1.activation)
            bn2 = BatchNorm2d(conv2)
            downsample.0 = BinaryConv2d/2(x)
            downsample.1 = BatchNorm2d(downsample.0)
            add1 = bn2 + downsample.1
            conv2.activation = Hardtanh(add1)
        """)
    whole = steps(model)
    assert whole[:3] == text("""
        conv1 = Conv2d/2(x)
        bn1 = BatchNorm2d(conv1)
        maxpool = MaxPool2d/2(bn1)
    """)
    assert whole[-2:] == ["head_norm = BatchNorm1d(avgpool)", "fc = Linear(head_norm)"]
    planes = {name: layer.input_binarizer.bitplanes for name, layer in binary_layers(model)}
    assert set(planes.values()) == {1, 2}
    assert all((n == 1) == ("downsample" in name) for name, n in planes.items())


def test_a_bnn_has_no_float_layer_and_its_first_one_reads_pixels() -> None:
    assert steps(converted("vgg_small", "bnn_paper"), "features")[:7] == text("""
        0 = BinaryConv2d[weights](input_1)
        1 = BatchNorm2d(0)
        2 = Hardtanh(1)
        3 = BinaryConv2d(2)
        4 = MaxPool2d/2(3)
        5 = BatchNorm2d(4)
        6 = Hardtanh(5)
    """)
    assert steps(converted("vgg_small", "bnn_paper"))[-2:] == [
        "features.20 = Hardtanh(features.19)",
        "fc = BinaryLinear > BatchNorm1d(features.20)",
    ]


class AlexNet(nn.Module):
    """The order of an AlexNet, narrow; convolution, norm, ReLU, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def test_xnor_nets_norms_stand_in_front_of_the_signs_and_two_relus_stay() -> None:
    images = torch.randn(2, 3, 32, 32)
    model = binarize.convert(AlexNet().eval(), "xnor_paper", example_input=images, calibrate=False)
    assert steps(model) == text("""
        features.0 = Conv2d/2(x)
        features.1 = BatchNorm2d(features.0)
        features.2 = ReLU(features.1)
        features.3 = MaxPool2d/2(features.2)
        features.4 = BatchNorm2d > BinaryConv2d(features.3)
        features.6 = MaxPool2d/2(features.4)
        features.7 = BatchNorm2d > BinaryConv2d(features.6)
        classifier.0 = BatchNorm1d > BinaryLinear(features.7)
        classifier.1 = ReLU(classifier.0)
        classifier.2 = Linear(classifier.1)
    """)
    for _, layer in binary_layers(model):
        assert (layer.weight_binarizer.centre, layer.weight_binarizer.scale_grad) == (True, "paper")


def binary_layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)]


def test_reactnets_thresholds_have_no_width_beside_them() -> None:
    images = 3 * nets.pictures(8, 32)
    for scheme, fixed in (("reactnet", False), ("reactnet_paper", True)):
        model = binarize.convert(VggSmall().eval(), scheme, calibrate=images, example_input=images)
        widths = [m.width for m in model.modules() if hasattr(m, "width")]
        assert len(widths) == 5
        assert all(bool((width == 1).all()) == fixed for width in widths)
