"""Binary layers and what stands beside them in a converted network."""

from __future__ import annotations

from binarize.layers.classes import binary_class, use_packed_forward
from binarize.layers.conv import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryConv3d,
    BinaryConvTranspose1d,
    BinaryConvTranspose2d,
    BinaryConvTranspose3d,
)
from binarize.layers.layer import BinaryLayer, Threshold
from binarize.layers.linear import BinaryLinear

__all__ = [
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryConv3d",
    "BinaryConvTranspose1d",
    "BinaryConvTranspose2d",
    "BinaryConvTranspose3d",
    "BinaryLayer",
    "BinaryLinear",
    "Threshold",
    "binary_class",
    "use_packed_forward",
]
