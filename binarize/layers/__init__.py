"""Binary layers and what stands beside them in a converted network.

classes.py          which binary class takes the place of a float layer
conv.py             Binary convolutions
foreign.py          Binary counterparts of layers of timm and transformers that compute in their own way
gradient_bound.py   gradients between binary layers kept from growing without bound
layer.py            Binary layers: each is the torch layer it replaces
linear.py           the binary linear layer
pointwise.py        gradients of 1x1 convolutions as matrix products
product.py          the product of a binary input and a binary weight
product_on_bits.py  the product of a binary input and a binary weight by XNOR and popcount, in training too
shortcuts.py        shortcuts around a layer: how its real-valued input reaches an output of another shape
"""

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
