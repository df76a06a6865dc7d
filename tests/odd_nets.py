"""Networks of which something cannot be done: run, or edit without taking containers apart."""

from __future__ import annotations

import nets
import torch
from torch import Tensor, nn


class Broken(nn.Module):
    """Its forward raises, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.tokens = nn.Embedding(20, 32)
        self.hidden = nn.Linear(32, 48)
        self.attention = nn.MultiheadAttention(48, 4)
        self.out = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("out of order")


class Opened(nets.Body):
    """The block's parts are containers themselves, which an edit across them takes apart."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nets.conv(), nn.BatchNorm2d(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.conv(x))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Opened.Pair(), Opened.Pair()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.second(self.first(x).relu())

    def __init__(self) -> None:
        super().__init__()
        self.block = Opened.Block()

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)
