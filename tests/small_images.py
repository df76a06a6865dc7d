"""A small network, class folders of images for it, and commands on both."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from typer.testing import CliRunner, Result

from binarize.cli import app


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, words), "--plain"], env={"COLUMNS": "200"})


def small() -> nn.Module:
    """Three convolutions on 8 x 8 images of four classes; every class is torch's."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def pictures(root: Path, classes: list[str], count: int = 12, size: int = 8) -> Path:
    """Class folders of images whose colour tells the class."""
    from PIL import Image

    draw = torch.Generator().manual_seed(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            coarse = torch.randint(0, 60, (1, 3, 3, 3), generator=draw) + 48.0 * label
            smooth = nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
            pixels = smooth[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root
