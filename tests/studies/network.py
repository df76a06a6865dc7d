"""A network of the study tests, for images of 8 x 8; it breaks down on demand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

# While this file is there, training breaks down at the step that it names.
TRAP = Path(__file__).with_name("trap")


class Tiny(nn.Module):
    """Three convolutions; the classifier is registered first and runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(16, 10)
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class Trapped(Tiny):
    """The same, its first convolution counting the steps of training."""

    def __init__(self) -> None:
        super().__init__()
        self.features[0] = Counting(1, 8, 3, 1, 1, bias=False)


class Counting(nn.Conv2d):
    """Raises at the step that the trap names."""

    steps = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.steps += 1
            if TRAP.is_file() and self.steps >= int(TRAP.read_text()):
                raise RuntimeError("trapped")
        return super().forward(x)


def broken() -> nn.Module:
    """A network that cannot be made."""
    raise ValueError("no such network")
