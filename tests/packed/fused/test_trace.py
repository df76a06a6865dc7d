"""Modules of the user's own in a fused model: what cannot be traced stays one step, what says its lines is taken in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.binarizers.nonlinearity import Nonlinearity, PiecewiseLinear
from binarize.binarizers.statistics import per_channel
from binarize.errors import CaptureError
from binarize.layers.conv import BinaryConv2d
from binarize.packed.freeze import freeze, pack_layers
from binarize.packed.fused.fuse import fuse
from binarize.packed.fused_conv import FusedConv


class Slopes(nn.Module):
    """A nonlinearity of somebody who knows nothing of us."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) + per_channel(self.slope, x, 1) * x.clamp_max(0)


class Written(Slopes):
    def forward(self, x: Tensor) -> Tensor:
        out = x.clone()
        out[x < 0] = 0
        return out + self.slope.view([1, -1] + [1] * (x.dim() - 2))


class Looped(Slopes):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.clamp_min(0) for row in x]) * self.slope.sum()


class Branched(Slopes):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) if x.mean() > 0 and x.shape[1] == 16 else x


class Numbered(Slopes):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_max(float(self.slope.max()) + float(x.mean()))


class Asked(Slopes):
    """Traces without an error, to something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_min(0) if isinstance(x, Tensor) else x


class AskedInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bent = nn.PReLU(16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bent(x)
        return 2 * y if torch.is_tensor(x) else y


class Two(Slopes):
    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return per_channel(self.slope, x, 1) * x * scale, x


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.two = Two()

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.two(x, scale=2.0)
        return a + b + self.two(x)[0]


class Shared(nn.Module):
    """Reads a parameter of the module that cannot be traced, before and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Slopes()

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.inner.slope.sum()
        return self.inner(x) * self.inner.slope.sum()


class Net(nn.Module):
    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        for name in ("first", "second"):
            conv = nn.Conv2d(16, 16, 3, padding=1)
            binarizers = {"weight_binarizer": ScaledSign(), "input_binarizer": ApproxSign()}
            setattr(self, name, BinaryConv2d.from_float(conv, **binarizers))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x))) + x


class Block(Net):
    """A module with packed layers in it that cannot be traced itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[1] == 16 else x


def packed(model: nn.Module, x: Tensor) -> nn.Module:
    return pack_layers(freeze(model.eval(), ((x,), {})))


@pytest.mark.parametrize(
    "between",
    [Slopes, Written, Looped, Branched, Numbered, Asked, AskedInside, First, Shared, lambda: Block(Slopes())],
)
def test_a_module_that_cannot_be_traced_runs_between_fused_layers(between):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 6)
    model = packed(Net(between()), x)
    fused = fuse(model, x)
    with torch.no_grad():
        assert torch.equal(fused(x), model(x))
        assert torch.equal(fused(x[:1]), model(x[:1]))
    assert sum(isinstance(module, FusedConv) for module in fused.modules()) == 2


class WholeBranched(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.mean() > 0 else x


class WholeAsked(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if isinstance(x, Tensor) else x


@pytest.mark.parametrize("whole", [WholeBranched, WholeAsked])
def test_a_model_whose_own_forward_cannot_be_traced_is_refused(whole):
    torch.manual_seed(0)
    x = torch.rand(2, 16, 5, 6)
    with pytest.raises(CaptureError, match=f"{whole.__name__} cannot be traced"):
        fuse(packed(whole(nn.ReLU()), x), x)


class Shifted(Nonlinearity):
    """max(x, 0) + slope min(x, 0) + shift."""

    def __init__(self, channels: int = 16, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.slope, self.shift = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        slope, shift = (per_channel(one, x, self.channel_dim) for one in (self.slope, self.shift))
        return x.clamp_min(0) + slope * x.clamp_max(0) + shift

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, negative=self.slope, post=self.shift)


class ForgotShift(Shifted):
    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(self.channel_dim, negative=self.slope)


class Clipped(Shifted):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1, 1)

    def piecewise(self) -> PiecewiseLinear | None:
        return PiecewiseLinear.of(negative=self.slope, post=self.shift, low=-1.0, high=1.0)


class SlowSum(Shifted):
    """Equal but for its rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 3) - 3 + super().forward(x) - x


@pytest.mark.parametrize(
    "between, taken",
    [(Shifted, True), (ForgotShift, False), (Clipped, False), (SlowSum, False)],
)
def test_lines_of_ones_own_run_in_the_kernel_where_they_are_the_forward(between, taken):
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 6)
    model = packed(Net(between()), x)
    fused = fuse(model, x)
    first, _ = (module for module in fused.modules() if isinstance(module, FusedConv))
    assert (first.activation is not None) == taken
    with torch.no_grad():
        assert torch.equal(fused(x), model(x))
