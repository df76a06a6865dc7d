"""Packed layers of every kind with the shape of one input, and a model that runs many modules in one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from packed_layers import conv, linear, packed
from torch import Tensor, nn

from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = ["BINARY", "FLOAT_INPUTS", "MIRRORED", "Made", "SideBySide", "noise"]

Made = tuple[tuple[int, ...], Callable[[], nn.Module]]


def noise(*shape: int, seed: int = 7) -> Tensor:
    """Some of it in halves, so that comparisons meet ties, zeros among them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x[::2] = (2 * x[::2]).round() / 2
    return x


def transposed(i: int, o: int, groups: int = 1, **form: object) -> PackedLayer:
    window = Window("conv_transpose", i, o, (3, 2), (2, 1), (1, 2), (1, 0), (1, 0), groups)
    return packed(window, **form)


def lopsided(mode: str, **form: object) -> PackedLayer:
    """Another padding on each side."""
    window = Window("conv", 6, 5, (3, 2), (1, 2), (1, 1), (1, 0, 2, 1), padding_mode=mode)  # type: ignore[arg-type]
    return packed(window, **form)


BINARY: dict[str, Made] = {
    "padded with 0": ((12, 6, 5), lambda: conv(12, 7, pad=1)),
    "padded with 1": ((12, 6, 5), lambda: conv(12, 7, pad=1, pad_value=1)),
    "padded with -1": ((12, 6, 5), lambda: conv(12, 7, pad=2, pad_value=-1)),
    "not padded, stride": ((5, 11, 9), lambda: conv(5, 6, stride=2)),
    "stride, dilation": ((5, 11, 9), lambda: conv(5, 6, stride=2, dilation=2, pad=2)),
    "another padding on each side": ((6, 6, 5), lambda: lopsided("zeros")),
    "same": ((6, 7, 5), lambda: lopsided("same", thresholds=True)),
    "groups": ((40, 5, 5), lambda: conv(40, 6, groups=2, pad=1)),
    "depthwise": ((35, 5, 5), lambda: conv(35, 35, groups=35, pad=1)),
    "1x1": ((70, 3, 3), lambda: conv(70, 5, 1)),
    "1025 channels": ((1025, 2, 2), lambda: conv(1025, 3, 1)),
    "conv1d": ((9, 14), lambda: conv(9, 8, 5, axes=1, pad=2, stride=2, thresholds=True)),
    "conv3d": ((5, 4, 5, 3), lambda: conv(5, 4, 3, axes=3, pad=1, outside=0.4)),
    "linear": ((45,), lambda: linear(45, 11)),
    "tokens": ((4, 24), lambda: linear(24, 7, thresholds=True, two_levels=True)),
    "transposed": ((6, 4, 5), lambda: transposed(6, 4, thresholds=True)),
    "transposed, groups, two levels": ((6, 4, 5), lambda: transposed(6, 4, 2, two_levels=True, outside=0.5)),
    "thresholds": ((20, 5, 5), lambda: conv(20, 6, pad=1, thresholds=True)),
    "three planes": ((20, 5, 5), lambda: conv(20, 6, pad=1, planes=3)),
    "two levels": ((20, 5, 5), lambda: conv(20, 6, pad=1, two_levels=True, outside=0.3)),
    "two levels in groups": ((20, 5, 5), lambda: conv(20, 6, groups=2, pad=1, two_levels=True, outside=-2.0)),
    "two levels, depthwise": ((7, 5, 5), lambda: conv(7, 14, groups=7, pad=1, two_levels=True, outside=1.5)),
    "off-centre input": ((20, 5, 5), lambda: conv(20, 6, pad=1, outside=0.7)),
    "zero and one": ((20, 5, 5), lambda: conv(20, 6, pad=1, zero_one=True, two_levels=True)),
    "zero and one, padded with 1": ((20, 5, 5), lambda: conv(20, 6, pad=1, zero_one=True, pad_value=1)),
}  # fmt: skip
MIRRORED: dict[str, Made] = {
    mode: ((6, 6, 5), lambda mode=mode: lopsided(mode, two_levels=True))  # type: ignore[misc]
    for mode in ("reflect", "replicate", "circular")
}
FLOAT_INPUTS: dict[str, Made] = {
    "convolution": ((6, 5, 5), lambda: conv(6, 7, pad=1, float_input=True, two_levels=True)),
    "padded with a number": ((6, 5, 5), lambda: conv(6, 8, groups=2, pad=1, float_input=True, pad_value=0.25)),
    "linear layer": ((37,), lambda: linear(37, 5, float_input=True)),
    "transposed convolution": ((6, 4, 5), lambda: transposed(6, 4, 2, float_input=True)),
}  # fmt: skip


class SideBySide(nn.Module):
    """Modules that read one input and yield one result each."""

    def __init__(self, made: Mapping[str, Made]) -> None:
        super().__init__()
        self.shapes = [shape for shape, _ in made.values()]
        self.layers = nn.ModuleList(make() for _, make in made.values())

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer, x in zip(self.layers, xs, strict=True))

    def inputs(self, n: int) -> tuple[Tensor, ...]:
        """Noise for a batch of n."""
        return tuple(noise(n, *shape) for shape in self.shapes)
