"""Which binary class takes the place of a float layer."""

from __future__ import annotations

from torch import nn

from binarize.layers import foreign
from binarize.layers.conv import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryConv3d,
    BinaryConvTranspose1d,
    BinaryConvTranspose2d,
    BinaryConvTranspose3d,
)
from binarize.layers.layer import BinaryLayer
from binarize.layers.linear import BinaryLinear
from binarize.layers.product_on_bits import checked_mode

__all__ = ["BINARY_CLASSES", "FLOAT_CLASSES", "binary_class", "use_packed_forward"]

# A new class is asked as soon as it stands here; what it accepts it says itself.
BINARY_CLASSES: tuple[type[BinaryLayer], ...] = (
    BinaryConv1d,
    BinaryConv2d,
    BinaryConv3d,
    BinaryConvTranspose1d,
    BinaryConvTranspose2d,
    BinaryConvTranspose3d,
    BinaryLinear,
    foreign.BinaryStdConv2d,
    foreign.BinaryConv2dSame,
    foreign.BinaryStdConv2dSame,
    foreign.BinaryConv1D,
)
# torch's own classes, whose places they take.
FLOAT_CLASSES = tuple(dict.fromkeys(cls.replaces for cls in BINARY_CLASSES if cls.replaces is not None))


def binary_class(layer: nn.Module) -> type[BinaryLayer] | None:
    """The binary class that can take the place of this layer, None where there is none."""
    return next((cls for cls in BINARY_CLASSES if cls.accepts(layer)), None)


def use_packed_forward(model: nn.Module, mode: str = "auto") -> int:
    """How the binary layers of a model compute their forward pass; the number of layers that were told.

    auto   on bits where the layer can and the shape makes it faster (how every layer starts)
    on     on bits wherever the layer can
    off    by torch's float convolutions and matrix products

    A layer can where both of its binarizers have two values a layer or a filter, there is one group, zeros are padded
    (or -1 or +1, with ±1 inputs), and the input is float32 on a CPU that the kernels know. The environment variable
    BINARIZE_PACKED_FORWARD, read once, is the mode of layers that were told nothing. Gradients are computed in the
    same way in all modes; with ±1 inputs and weights they are the same to the bit.

    Example:
        >>> use_packed_forward(nn.Sequential(nn.ReLU()), "off")
        0

    Raises: UsageError for a mode that is none of the three.
    """
    checked_mode(mode, "mode")
    layers = [m for m in model.modules() if isinstance(m, BinaryLayer)]
    for layer in layers:
        layer.packed_forward = mode
    return len(layers)
