"""What a nonlinearity says of itself, so that others need no list of classes: its straight lines, and how it starts as ReLU.

A part that says nothing is still right everywhere: its own `forward` runs wherever torch runs, and an exporter that
needs formulas refuses it by name. One that writes `piecewise` becomes part of the kernels, of a packed file that
stands alone, of C and of ONNX; each of these first compares it with `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from binarize.binarizers.statistics import per_channel
from binarize.errors import REFUSALS, BinarizeError, UsageError

__all__ = ["STARTS_AS_RELU", "Nonlinearity", "PiecewiseLinear", "piecewise_of", "start_as_relu"]

_TABLES = ("pre", "positive", "negative", "post")
# Distances from the bend and from the limits at which a form is compared with the forward it stands for.
_DISTANCES = (0.0, 1e-30, 1e-6, 1e-3, 0.1, 0.5, 1.0, 3.0, 100.0)
_NOISE = 24


class Nonlinearity(nn.Module):
    """y -> y of the same shape, real-valued. What others need of it are the methods here; each may stay "unknown"."""

    def piecewise(self) -> PiecewiseLinear | None:
        """What it computes in evaluation mode, as straight lines with the same rounding; None where it is something else."""
        return None

    def start_as_relu(self) -> bool:
        """Set its numbers so that it computes max(x, 0). Gives False, and changes nothing, where it cannot."""
        return False


class PiecewiseLinear(Nonlinearity):
    """Two straight lines a channel, between limits; each step is rounded by itself, and what is None is left out.

        z = x + pre
        y = clamp((positive z where z > 0, else negative z) + post, low, high)

    PReLU has (negative = slope); RPReLU (pre = -gamma, negative = slope, post = zeta); Maxout (positive, negative).

    Shapes: tables (C,), or (1,) for all channels alike; x (N, C, ...) -> same; channel_dim=-1 for (..., C).
    """

    pre: nn.Parameter | None
    positive: nn.Parameter | None
    negative: nn.Parameter | None
    post: nn.Parameter | None

    def __init__(
        self, channels: int, channel_dim: int = 1, low: float | None = None, high: float | None = None
    ) -> None:
        super().__init__()
        self.channel_dim, self.low, self.high = channel_dim, low, high
        for name, neutral in zip(_TABLES, (0.0, 1.0, 1.0, 0.0)):
            self.register_parameter(name, nn.Parameter(torch.full((channels,), neutral), requires_grad=False))

    @classmethod
    def of(
        cls,
        channel_dim: int = 1,
        *,
        pre: Tensor | None = None,
        positive: Tensor | None = None,
        negative: Tensor | None = None,
        post: Tensor | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> PiecewiseLinear:
        """The form with these tables. Those not given, and those that do nothing, are None.

        Shapes: (C,) or (1,) each. Raises: UsageError, where these are tables of several numbers of channels.
        """
        given = dict(zip(_TABLES, (pre, positive, negative, post)))
        sizes = {table.numel() for table in given.values() if table is not None} - {1}
        if len(sizes) > 1:
            raise UsageError(
                f"PiecewiseLinear.of: tables of {sorted(sizes)} channels; expected one number of them"
            )
        limits = (None if limit is None else float(limit) for limit in (low, high))
        form = cls(1, channel_dim, *limits)
        for name, table in given.items():
            idle = table is None or bool((table == (0 if name in ("pre", "post") else 1)).all())
            kept = None if table is None or idle else table.detach().reshape(-1).clone()
            form.register_parameter(name, None if kept is None else nn.Parameter(kept, requires_grad=False))
        return form

    @property
    def channels(self) -> int:
        """Channels of its tables; 1 where all channels are alike."""
        return max((table.numel() for table in self.parameters()), default=1)

    @property
    def is_relu(self) -> bool:
        """Whether it is max(x, 0)."""
        alone = self.pre is None and self.positive is None and self.post is None and not self.limited
        return alone and self.negative is not None and not bool(self.negative.any())

    @property
    def limited(self) -> bool:
        """Whether its values end at `low` or `high`."""
        return self.low is not None or self.high is not None

    def table(self, channels: int) -> Tensor | None:
        """All four tables, float32 (4, channels); None where these are other channels."""
        if self.channels not in (1, channels):
            return None
        return torch.stack([row.detach().float().expand(channels) for row in self._rows()])

    def whole(self) -> PiecewiseLinear:
        """The same with every table there, of `channels` numbers each."""
        form = PiecewiseLinear(self.channels, self.channel_dim, self.low, self.high)
        for name, row in zip(_TABLES, self._rows()):
            table = row.detach().expand(self.channels).clone()
            setattr(form, name, nn.Parameter(table, requires_grad=False))
        return form

    def _rows(self) -> Iterator[Tensor]:
        like = next(self.parameters(), torch.zeros(1))
        for name, neutral in zip(_TABLES, (0.0, 1.0, 1.0, 0.0)):
            table = getattr(self, name)
            yield like.new_full((1,), neutral) if table is None else table

    def forward(self, x: Tensor) -> Tensor:
        pre, positive, negative, post = (
            None if table is None else per_channel(table, x, self.channel_dim)
            for table in (self.pre, self.positive, self.negative, self.post)
        )
        z = x if pre is None else x + pre
        if positive is not None:
            y = z * torch.where(z > 0, positive, 1 if negative is None else negative)
        else:
            y = z if negative is None else torch.where(z > 0, z, z * negative)
        y = y if post is None else y + post
        return y.clamp(self.low, self.high) if self.limited else y

    def piecewise(self) -> PiecewiseLinear:
        return PiecewiseLinear.of(
            self.channel_dim, **{name: getattr(self, name) for name in _TABLES}, low=self.low, high=self.high
        )

    def extra_repr(self) -> str:
        limits = f", low={self.low}, high={self.high}" if self.limited else ""
        return f"{self.channels}, channel_dim={self.channel_dim}{limits}"


def _one_slope(slope: float) -> PiecewiseLinear:
    return PiecewiseLinear.of(negative=torch.tensor([float(slope)]))


# Torch's own modules, which have no methods of ours.
_TORCH: dict[type[nn.Module], Callable[[Any], PiecewiseLinear]] = {
    nn.ReLU: lambda module: _one_slope(0.0),
    nn.LeakyReLU: lambda module: _one_slope(module.negative_slope),
    nn.PReLU: lambda module: PiecewiseLinear.of(negative=module.weight),
    nn.ReLU6: lambda module: PiecewiseLinear.of(low=0.0, high=6.0),
    nn.Hardtanh: lambda module: PiecewiseLinear.of(low=module.min_val, high=module.max_val),
}
# Modules that may start as ReLU.
STARTS_AS_RELU = (Nonlinearity, nn.PReLU)


@torch.no_grad()
def start_as_relu(module: nn.Module) -> bool:
    """Set a nonlinearity so that it computes max(x, 0); whether it could."""
    if type(module) is nn.PReLU:
        module.weight.zero_()
        return True
    return isinstance(module, Nonlinearity) and module.start_as_relu()


@torch.no_grad()
def piecewise_of(module: nn.Module) -> PiecewiseLinear | str:
    """A nonlinearity in evaluation mode as straight lines, or in words why it is none.

    What the part says is compared with its forward on float32 numbers around its bends: it must be equal to the bit.
    """
    kind = type(module)
    said: Any = None
    if isinstance(module, Nonlinearity):
        try:
            said = module.piecewise()
        except (BinarizeError, *REFUSALS) as error:
            return f"{kind.__name__}.piecewise() fails: {type(error).__name__}: {error}"
    elif kind in _TORCH:
        said = _TORCH[kind](module)
    if said is None:
        return f"{kind.__name__} does not say its straight lines; write its method piecewise() (docs/architecture.md)"
    if not isinstance(said, PiecewiseLinear):
        return f"{kind.__name__}.piecewise() gives a {type(said).__name__}; expected a PiecewiseLinear"
    return said if kind is PiecewiseLinear else (_disagreement(module, said) or said)


def _disagreement(module: nn.Module, form: PiecewiseLinear) -> str | None:
    """In words where a module computes something else than its form; None where both are equal."""
    name, training = type(module).__name__, module.training
    rows = _probes(form)
    module.eval()
    try:
        for axes in (2, 0, 1):
            x = _laid(rows, axes, form.channel_dim)
            try:
                found = module(x.clone())
            except (BinarizeError, *REFUSALS) as error:
                reason = f"{name} cannot be asked for single numbers: {error}"
                continue
            return _first_difference(name, x, found, form(x))
    finally:
        module.train(training)
    return reason


def _probes(form: PiecewiseLinear) -> Tensor:
    """Numbers around each channel's bend, around the limits and far away. Shapes: float32 (n, C)."""
    steps = torch.tensor(_DISTANCES)
    steps = torch.cat([steps, -steps])
    # Where one table serves all channels, several show whether they are mixed.
    channels = form.channels if form.channels > 1 else 2
    table = form.table(channels)
    assert table is not None
    starts = [torch.zeros(channels), -table[0].cpu()]
    starts += [torch.full((channels,), limit) for limit in (form.low, form.high) if limit is not None]
    noise = torch.randn(_NOISE, channels, generator=torch.Generator().manual_seed(0))
    near = [start + steps[:, None] for start in starts]
    return torch.cat([*near, noise, 10 * noise]).to(table.device)


def _laid(rows: Tensor, axes: int, channel_dim: int) -> Tensor:
    """The rows as samples of images of so many axes, two pixels each, the channels on their axis."""
    if axes:
        pixels = rows.unflatten(0, (-1, 2)).transpose(1, 2)
        rows = pixels.reshape(*pixels.shape, *[1] * (axes - 1))
    return (rows if channel_dim == 1 else rows.movedim(1, channel_dim)).contiguous()


def _first_difference(name: str, x: Tensor, found: object, expected: Tensor) -> str | None:
    if not isinstance(found, Tensor) or found.shape != x.shape or found.dtype != x.dtype:
        return f"{name} gives something else than as many float32 numbers"
    wrong = ((found != expected) & ~(found.isnan() & expected.isnan())).nonzero()
    if not len(wrong):
        return None
    at = tuple(wrong[0].tolist())
    said, made = float(expected[at]), float(found[at])
    return f"{name}.piecewise() is not its forward: for {float(x[at])!r} it gives {said!r}, forward {made!r}"
