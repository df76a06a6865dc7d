"""The contents of a packed file that stands alone, small enough to be changed everywhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import binarize
from binarize.packed.file.contents import contents_of
from binarize.packed.file.format import PackedModel
from binarize.packed.freeze import freeze, pack_layers
from binarize.packed.graph.trace import graph_of


class Small(nn.Module):
    """A module of each kind, a tensor that the code reads, a method, an attribute and functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.relu = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.gain, self.fc = nn.Parameter(torch.ones(32)), nn.Linear(32, 5)

    def forward(self, x: Tensor, power: int = 1) -> Tensor:
        y = self.relu(self.norm(self.stem(x)))
        y = self.conv2(torch.relu(self.conv1(y)))
        return self.fc(y.view(y.shape[0], 32, -1).mean(2) * self.gain**power)


def _contents() -> PackedModel:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    binary = binarize.convert(Small().eval(), "adabin", example_input=x, shortcuts="every")
    packed = pack_layers(freeze(binary, ((x,), {})))
    found = graph_of(packed, (x,), {})
    assert not isinstance(found, str), found
    contents = contents_of(packed, loose=found[1])
    return PackedModel(contents.layers, contents.rest, {**contents.about, "graph": found[0]})


CONTENTS = _contents()
X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
