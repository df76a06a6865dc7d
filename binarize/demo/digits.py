"""The 8 x 8 digits, split once and for all, and the small VGG trained on them.

Every fifth image is held out (359 of 1,797). The same people wrote both parts, so the accuracy says how well
a network fits these writers, not how well it reads digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["WEIGHTS", "Digits", "DigitsVGG", "load_digits", "trained_vgg"]

_HERE = Path(__file__).parent
WEIGHTS = _HERE / "digits_vgg.safetensors"


class Digits(NamedTuple):
    """Images (N, 1, 8, 8), float32 in [-1, 1], and labels (N,), int64, of both parts."""

    train_images: Tensor
    train_labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


def load_digits() -> Digits:
    """The bundled digits; `DIGITS.md` beside this file says where they come from and under which licence."""
    with np.load(_HERE / "digits.npz", allow_pickle=False) as data:
        images = torch.from_numpy(data["images"]).float().div(8).sub(1).unsqueeze(1)
        labels = torch.from_numpy(data["labels"]).long()
    held_out = torch.arange(len(labels)) % 5 == 4
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


class DigitsVGG(nn.Module):
    """Four 3 x 3 convolutions with ReLU, two max pools, two linear layers; 0.26 M parameters, no BatchNorm.

    Shapes: x: (N, 1, 8, 8) -> (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(512, 256),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(256, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten digits."""
        return self.classifier(self.features(x).flatten(1))


def trained_vgg() -> DigitsVGG:
    """The network with its trained weights, in evaluation mode."""
    from safetensors.torch import load_file

    model = DigitsVGG()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()
