"""Packed layers of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from binarize.packed.frozen.form import Form
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = ["KINDS", "Made", "conv", "linear", "packed"]

# Shape of one sample, and what makes the module that reads it.
Made = tuple[tuple[int, ...], Callable[[], nn.Module]]


def packed(window: Window, seed: int = 0, **form: Any) -> PackedLayer:
    """A packed layer of this window: random signs, scales of both signs, shifts; `form` gives the rest."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    planes, out = form.pop("planes", 1), window.out_channels
    if planes > 1 or form.pop("thresholds", False):
        form["threshold"] = noise(planes, window.in_channels) / 2
    if form.pop("two_levels", False):
        form["window_scale"] = noise(out)
    lower = noise(*window.weight_shape) < 0
    return PackedLayer.of(Form(window, noise(planes, out), noise(out), **form), lower).eval()


def conv(
    i: int, o: int, k: int = 3, *, axes: int = 2, pad: int = 0, seed: int = 0, **options: Any
) -> PackedLayer:
    """A packed convolution; `stride`, `dilation` and `groups` as in torch, the rest are fields of its form."""
    steps = {name: (options.pop(name, 1),) * axes for name in ("stride", "dilation")}
    groups = options.pop("groups", 1)
    window = Window("conv", i, o, (k,) * axes, padding=(pad,) * (2 * axes), groups=groups, **steps)
    return packed(window, seed, **options)


def linear(i: int, o: int, **form: Any) -> PackedLayer:
    """A packed linear layer."""
    return packed(Window("linear", i, o), **form)


# One of every kind that the kernels know, and layers with float inputs.
KINDS: dict[str, Made] = {
    "padded with 0": ((12, 6, 5), lambda: conv(12, 7, pad=1)),
    "padded with 1": ((12, 6, 5), lambda: conv(12, 7, pad=1, pad_value=1)),
    "padded with -1": ((12, 6, 5), lambda: conv(12, 7, pad=2, pad_value=-1)),
    "33 channels": ((33, 4, 4), lambda: conv(33, 34, pad=1)),
    "64 channels": ((64, 4, 4), lambda: conv(64, 3, pad=1)),
    "stride, dilation": ((5, 11, 9), lambda: conv(5, 6, stride=2, dilation=2, pad=2)),
    "groups": ((40, 5, 5), lambda: conv(40, 6, groups=2, pad=1)),
    "depthwise": ((35, 5, 5), lambda: conv(35, 35, groups=35, pad=1)),
    "1x1": ((70, 3, 3), lambda: conv(70, 5, 1)),
    "conv1d": ((9, 14), lambda: conv(9, 8, 5, axes=1, pad=2, stride=2)),
    "linear": ((45,), lambda: linear(45, 11)),
    "thresholds": ((20, 5, 5), lambda: conv(20, 6, pad=1, thresholds=True)),
    "three planes": ((20, 5, 5), lambda: conv(20, 6, pad=1, planes=3)),
    "two levels": ((20, 5, 5), lambda: conv(20, 6, pad=1, two_levels=True, outside=0.3)),
    "two levels in groups": ((20, 5, 5), lambda: conv(20, 6, groups=2, pad=1, two_levels=True, outside=-2.0)),
    "off-centre input": ((20, 5, 5), lambda: conv(20, 6, pad=1, outside=0.7)),
    "zero and one": ((20, 5, 5), lambda: conv(20, 6, pad=1, zero_one=True, two_levels=True)),
    "zero and one, padded with 1": ((20, 5, 5), lambda: conv(20, 6, pad=1, zero_one=True, pad_value=1)),
    "float inputs": ((6, 5, 5), lambda: conv(6, 7, pad=1, float_input=True, two_levels=True)),
    "float inputs, padded": ((6, 5, 5), lambda: conv(6, 8, groups=2, pad=1, float_input=True, pad_value=0.25)),
    "float inputs of a linear layer": ((37,), lambda: linear(37, 5, float_input=True)),
}  # fmt: skip


class Beside(nn.Module):
    """Layers that read an argument each."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs)]
