"""The networks of the accuracy benchmarks, for one-channel images of 28 x 28 in ten classes.

    vgg6     6 convolutions of 3 x 3, the first with stride 2, each with BatchNorm and ReLU; global pooling
    plain16  the same with 10, 16 or 24 convolutions
    vgg11    a narrow VGG-11 with its fully connected head of three layers
    lenet    two convolutions of 5 x 5 and two linear layers
    resnet18, mobilenetv2    narrow, for images of 32 x 32

python benchmarks/networks.py counts their parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "SIDES", "LeNet", "Plain", "Vgg11", "make", "vgg6"]

# Convolutions -> how many of them have 32, 64 and 128 channels; a pooling ends each group.
_GROUPS: Mapping[int, tuple[int, int, int]] = {6: (2, 2, 2), 10: (2, 4, 4), 16: (4, 6, 6), 24: (6, 9, 9)}
_WIDTHS = (32, 64, 128)


def _unit(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class Plain(nn.Module):
    """A chain of 3 x 3 convolutions without any skip, the first with stride 2.

    Shapes: x: (N, 1, 28, 28) -> (N, 10).
    """

    def __init__(self, convolutions: int = 6, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width, count in zip(_WIDTHS, _GROUPS[convolutions]):
            for _ in range(count):
                layers += _unit(inputs, width, stride=1 if layers else 2)
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Vgg11(nn.Module):
    """VGG-11 at an eighth of its width, with BatchNorm, and its head of three linear layers.

    Shapes: x: (N, 1, 28, 28) -> (N, 10). The fifth pooling is left out: 28 can be halved four times.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for group in ((16,), (32,), (64, 64), (64, 64, 64, 64)):
            for width in group:
                layers += _unit(inputs, width)
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class LeNet(nn.Module):
    """Two 5 x 5 convolutions and two linear layers, BatchNorm after all but the last, no bias: 17,984 parameters.

    Shapes: x: (N, 1, 28, 28) -> (N, 10).
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 5, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 16, 5, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(256, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def vgg6() -> Plain:
    """The network of most rows."""
    return Plain(6)


def _narrow(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        model: nn.Module = timm.create_model(name, in_chans=1, num_classes=10, **options)
        return model

    return build


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "vgg6": vgg6,
    "plain6": vgg6,
    "plain10": lambda: Plain(10),
    "plain16": lambda: Plain(16),
    "plain24": lambda: Plain(24),
    "vgg11": Vgg11,
    "lenet": LeNet,
    "resnet18": _narrow("resnet18", channels=(16, 32, 64, 128), stem_width=16, stem_type=""),
    "mobilenetv2": _narrow("mobilenetv2_050", output_stride=16),
}
# Sides of the images where they are not 28.
SIDES: Mapping[str, int] = {"resnet18": 32, "mobilenetv2": 32}


def make(name: str, seed: int = 0) -> nn.Module:
    """The network with random weights of that seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


def describe(names: Sequence[str] = ()) -> str:
    """A line for each network."""
    return "\n".join(f"{name:12s} {parameters(make(name)):>9,} parameters" for name in names or NETWORKS)


if __name__ == "__main__":
    print(describe())
