"""The networks of these studies: six 3 x 3 convolutions and a linear layer, and one of 17,984 weights for 28 x 28 pixels."""

from __future__ import annotations

from torch import nn

__all__ = ["net_17984", "vgg6"]


def vgg6(channels: int = 1, classes: int = 10) -> nn.Module:
    """For images of that many channels and any size from 8 x 8 on; about 0.29 M parameters."""
    layers: list[nn.Module] = []
    inputs = channels
    for width in (32, 64, 128):
        for stride in (1 if layers else 2, 1):
            layers += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        if width < 128:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def net_17984() -> nn.Module:
    """Two convolutions and two linear layers without biases; for images of one channel and 28 x 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False),
    )  # fmt: skip
