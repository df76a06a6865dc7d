"""The network of these studies: six 3 x 3 convolutions, the first with stride 2, and one linear layer."""

from __future__ import annotations

from torch import nn

__all__ = ["vgg6"]


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
