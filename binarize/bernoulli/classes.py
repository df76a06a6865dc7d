"""Which class of random signs takes a layer's place, and which of them are still random."""

from __future__ import annotations

from torch import nn

from binarize.bernoulli.layers import BernoulliConv2d, BernoulliLayer, BernoulliLinear, ExpectationLinear
from binarize.binarizers.bernoulli import Probabilities
from binarize.layers.conv import BinaryConv2d
from binarize.layers.layer import BinaryLayer
from binarize.layers.linear import BinaryLinear

__all__ = ["HARDENED_CLASSES", "bernoulli_class", "is_soft"]

# Once hardened, each computes what the class in front of it in its order of resolution does.
HARDENED_CLASSES = (BernoulliConv2d, BernoulliLinear, ExpectationLinear)


def is_soft(layer: nn.Module) -> bool:
    """Whether a layer is one of random signs that is not hardened yet."""
    return isinstance(layer, BernoulliLayer) and layer.is_soft


def bernoulli_class(cls: type[BinaryLayer], part: nn.Module | None) -> type[BinaryLayer]:
    """The class of a layer with this weight binarizer, in place of `cls`: that itself where weights are no probabilities."""
    if not isinstance(part, Probabilities):
        return cls
    if cls is BinaryConv2d:
        return BernoulliConv2d
    if cls is BinaryLinear:
        return ExpectationLinear if part.reads == "sum" else BernoulliLinear
    return cls
