"""Which modules are one step of a recording, and which are looked into."""

from __future__ import annotations

import pytest
from nets import BasicBlock, DropPath, NamedConv, StandardizedConv
from torch import nn

from binarize.binarizers.bnn import SteSign
from binarize.capture.leaves import is_leaf, is_opaque
from binarize.layers.layer import Threshold
from binarize.layers.linear import BinaryLinear


class Doubling(nn.Module):
    """A helper without children and without tensors."""


class Scaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter()


@pytest.mark.parametrize(
    "module, leaf, opaque",
    [
        (nn.Conv2d(3, 3, 1), True, True),
        (NamedConv(3, 3, 1), True, True),
        (StandardizedConv(3, 3, 1), True, True),
        # Its parts hold parameters, and it is one layer all the same.
        (
            BinaryLinear.from_float(nn.Linear(2, 2), weight_binarizer=SteSign(), threshold=Threshold(2, -1)),
            True,
            True,
        ),
        (nn.MultiheadAttention(4, 2), True, True),
        (nn.BatchNorm2d(3), True, True),
        (nn.ReLU(), True, True),
        # Random numbers make the graphs of the two modes differ.
        (DropPath(), True, True),
        # What a helper computes should be seen by the recorder; the tracer leaves it closed.
        (Doubling(), False, True),
        (Scaling(), True, True),
        (nn.Sequential(nn.ReLU()), False, False),
        (nn.Sequential(), False, True),
        (BasicBlock(4, 4, 1), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_single_operations_are_leaves_and_containers_are_not(
    module: nn.Module, leaf: bool, opaque: bool
) -> None:
    assert (is_leaf(module), is_opaque(module)) == (leaf, opaque)
