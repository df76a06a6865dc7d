"""Packed layers of random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.packed.layers import Form, PackedLayer
from binarize.packed.window import Window

__all__ = ["conv", "linear", "packed"]


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
