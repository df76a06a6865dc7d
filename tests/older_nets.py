"""The networks behind the files in tests/data/older: their classes must stay as they are."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Gated", "Plain"]


class Plain(nn.Module):
    """Three 3 x 3 convolutions and a linear layer on (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, filters in ((1, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Gated(nn.Module):
    """Runs only once `ready` is set, so that a conversion has nothing to record."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = False
        self.plain = Plain()

    def forward(self, x: Tensor) -> Tensor:
        if not self.ready:
            raise RuntimeError("not ready")
        out: Tensor = self.plain(x)
        return out
