"""Layers of timm and transformers keep their own computation: with nothing binarized, the binary class does the same."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn

from binarize.binarizers.adabin import AdaptiveWeight
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.xnorpp import ChannelScale
from binarize.layers.classes import binary_class
from binarize.layers.conv import BinaryConv2d
from binarize.layers.foreign import BinaryConv1D
from binarize.layers.linear import BinaryLinear

KINDS = [Conv2dSame, StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (2, 2)])
def test_without_binarizers_the_output_is_the_float_layers(
    kind: type[nn.Conv2d], stride: int, dilation: int
) -> None:
    torch.manual_seed(0)
    layer = kind(4, 6, 3, stride=stride, dilation=dilation)
    x = torch.randn(2, 4, 11, 14)
    cls = binary_class(layer)
    assert cls is not None and issubclass(cls, BinaryConv2d)
    same = cls.from_float(layer, weight_binarizer=nn.Identity())
    torch.testing.assert_close(same(x), layer(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_keep_their_names_and_get_gradients(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    layer = kind(4, 6, 3)
    names = [name for name, _ in layer.named_parameters()]
    cls = binary_class(layer)
    assert cls is not None
    new = cls.from_float(layer, weight_binarizer=nn.Identity(), input_binarizer=SteSign())
    new(torch.randn(2, 4, 9, 9)).square().sum().backward()
    assert [name for name, _ in new.named_parameters()] == names
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in new.parameters())


def test_padding_comes_after_the_sign() -> None:
    layer = Conv2dSame(1, 1, 3, bias=False)
    cls = binary_class(layer)
    assert cls is not None
    with torch.no_grad():
        layer.weight.fill_(1.0)
    new = cls.from_float(layer, weight_binarizer=nn.Identity(), input_binarizer=SteSign())
    # A padded 0 must stay 0: the corner sees 4 of the 9 positions.
    assert new(torch.ones(1, 1, 3, 3))[0, 0, 0, 0].item() == 4.0


def test_a_class_of_the_same_name_elsewhere_is_not_taken() -> None:
    foreign = type("StdConv2d", (nn.Conv2d,), {"forward": lambda self, x: x, "__module__": "mine"})
    assert binary_class(foreign(1, 1, 1)) is None


# --- GPT-2's linear layer


def transposed_linear() -> tuple[nn.Module, nn.Linear]:
    """transformers' Conv1D and a linear layer of the same weights."""
    library = pytest.importorskip("transformers.pytorch_utils")
    torch.manual_seed(0)
    layer, twin = library.Conv1D(6, 4), nn.Linear(4, 6)
    with torch.no_grad():
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        twin.weight.copy_(layer.weight.t())
        twin.bias.copy_(layer.bias)
    return layer, twin


def test_conv1d_is_a_linear_layer_with_its_weight_the_other_way_round() -> None:
    layer, twin = transposed_linear()
    x = torch.randn(2, 3, 4)
    assert binary_class(layer) is BinaryConv1D
    parts = {"weight_binarizer": AdaptiveWeight(), "input_binarizer": SteSign(), "norm": nn.LayerNorm(6)}
    ours = BinaryConv1D.from_float(layer, **parts, scale=ChannelScale(6, channel_dim=-1))
    theirs = BinaryLinear.from_float(twin, **parts, scale=ChannelScale(6, channel_dim=-1))
    assert (ours.in_features, ours.out_features) == (4, 6)
    assert ours.weight is layer.weight
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-6)
    for made in (ours, theirs):
        made(x).square().sum().backward()
    assert ours.weight.grad is not None and theirs.weight.grad is not None
    torch.testing.assert_close(ours.weight.grad.t(), theirs.weight.grad, rtol=1e-5, atol=1e-6)
