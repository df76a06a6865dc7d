"""Parts of a user's own, for rules to name: `own_parts.Shifted`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.statistics import per_channel


class Silent(nn.Module):
    """max(x, 0) + slope min(x, 0) + shift, of somebody who knows nothing of `Nonlinearity`."""

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.slope, self.shift = (
            nn.Parameter(torch.full((channels,), 0.2)),
            nn.Parameter(torch.zeros(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        slope, shift = (per_channel(one, x, self.channel_dim) for one in (self.slope, self.shift))
        return x.clamp_min(0) + slope * x.clamp_max(0) + shift


class Shifted(Nonlinearity, Silent):
    """The same, which says what others need of it."""

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, negative=self.slope, post=self.shift)

    def start_as_relu(self) -> bool:
        nn.init.zeros_(self.slope)
        nn.init.zeros_(self.shift)
        return True


class Clipped(Shifted):
    """Between -2 and 2."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-2, 2)

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, negative=self.slope, post=self.shift, low=-2.0, high=2.0)


class Steep(Shifted):
    """All four numbers: a bend anywhere, two slopes, a shift behind them."""

    def forward(self, x: Tensor) -> Tensor:
        slope, shift = (per_channel(one, x, self.channel_dim) for one in (self.slope, self.shift))
        z = x + 0.25
        return torch.where(z > 0, 2 * z, slope * z) + shift

    def piecewise(self) -> PiecewiseLinear | None:
        moved, twice = torch.full_like(self.slope, 0.25), torch.full_like(self.slope, 2.0)
        return PiecewiseLinear.of(
            self.channel_dim, pre=moved, positive=twice, negative=self.slope, post=self.shift
        )


class ForgotShift(Shifted):
    """Says something else than it computes."""

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, negative=self.slope)


class Halved(Nonlinearity):
    """max(x, 0) + min(x, 0) / 2: no tensors of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * 0.5)

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(negative=torch.tensor([0.5]))
