"""Mutated binarize.json and report.json, sealed anew or not, in a folder of a small model that is then loaded."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from fuzz_mutations import mutated_bytes, mutated_tree
from torch import Tensor, nn

import binarize
from binarize.checkpoint.fingerprint import record_digest

__all__ = ["cases", "folder", "read"]


class Block(nn.Module):
    """A residual block whose forward has to be rewritten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Two convolutions and the input."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


def net() -> nn.Module:
    """The float model."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), Block(), Block(), nn.Flatten(), nn.Linear(8 * 36, 16), nn.ReLU(),
        nn.Linear(16, 4),
    ).eval()  # fmt: skip


@cache
def folder() -> Path:
    """The folder of the converted model, which no case changes."""
    model = binarize.convert(net(), "reactnet_paper", example_input=torch.randn(2, 3, 8, 8), calibrate=False)
    return binarize.save(model, Path(tempfile.mkdtemp()) / "net")


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was changed, content of a binarize.json), without end."""
    draw = random.Random(seed)
    raw = (folder() / "binarize.json").read_bytes()
    record = json.loads(raw)
    while True:
        if draw.random() < 0.1:
            yield mutated_bytes(raw, draw)
            continue
        what, changed = mutated_tree(record, draw)
        sealed = draw.random() < 0.9
        if sealed and isinstance(changed.get("fingerprint"), dict):
            changed["fingerprint"]["record"] = record_digest(changed)
        yield f"{'sealed ' * sealed}{what}", json.dumps(changed).encode()


def read(path: Path) -> None:
    """Load the folder with this record in it."""
    with tempfile.TemporaryDirectory() as place:
        for file in folder().iterdir():
            if file.name != "binarize.json":
                (Path(place) / file.name).symlink_to(file)
        (Path(place) / "binarize.json").symlink_to(path.absolute())
        binarize.load(place, model=net())
