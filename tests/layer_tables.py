"""Float layers of every kind, ways to binarize them, and a tiny network of binary layers."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from binarize.binarizers import adabin, bireal, bnn, dorefa, irnet, xnor, xnorpp
from binarize.layers.classes import binary_class
from binarize.layers.layer import Threshold

# A float layer of every class, with the shape of an input.
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 8)),
    "conv2d strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 7, 8)),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 7, 8)),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 4, 7, 8)),
    "conv2d dilated": (lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), dilation=(2, 1)), (2, 4, 7, 8)),
    "conv2d same": (lambda: nn.Conv2d(4, 6, (3, 2), padding="same"), (2, 4, 7, 8)),
    "conv2d valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 8)),
    "conv2d reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 8)),
    "conv2d replicate": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), (2, 4, 7, 8)),
    "conv2d circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 7, 8)),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 4, 3)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (2, 4, 5, 4)),
    "conv_transpose2d grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 4)),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(4, 6, 2, padding=1), (2, 4, 3, 4, 5)),
    "linear": (lambda: nn.Linear(4, 6), (5, 4)),
    "linear tokens": (lambda: nn.Linear(4, 6, bias=False), (2, 5, 4)),
}
METHODS = {
    "bnn": lambda axis: {"weight_binarizer": bnn.SteSign(), "input_binarizer": bnn.SteSign()},
    "bireal": lambda axis: {
        "weight_binarizer": bireal.ScaledSign(axis=axis),
        "input_binarizer": bireal.ApproxSign(),
    },
    "adabin": lambda axis: {
        "weight_binarizer": adabin.AdaptiveWeight(axis=axis),
        "input_binarizer": adabin.AdaptiveInput(),
    },
    # Its gradient goes two ways.
    "adabin as in code": lambda axis: {
        "weight_binarizer": adabin.AdaptiveWeight(axis=axis),
        "input_binarizer": adabin.AdaptiveInput(form="code"),
    },
    "xnor exact": lambda axis: {
        "weight_binarizer": xnor.ScaledSign(scale_grad="exact", axis=axis),
        "input_binarizer": bnn.SteSign(),
    },
    "dorefa": lambda axis: {
        "weight_binarizer": dorefa.LayerScaledSign(),
        "input_binarizer": dorefa.ZeroOne(),
    },
    "irnet weights only": lambda axis: {"weight_binarizer": irnet.LibraWeight(axis=axis)},
}


def channels(layer: nn.Module) -> tuple[int, int, int]:
    """In, out, and the axis of the channels."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, -1
    return layer.in_channels, layer.out_channels, 1


def norm_for(layer: nn.Module) -> nn.Module:
    kinds = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    _, out, dim = channels(layer)
    return nn.LayerNorm(out) if dim == -1 else kinds[layer.weight.dim()](out)


def convert(layer: nn.Module, method: str = "adabin", **more):
    parts = METHODS[method](int(getattr(layer, "transposed", False)))
    return binary_class(layer).from_float(layer, **{**parts, **more})


def made(kind: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    build, shape = LAYERS[kind]
    return build(), torch.randn(shape)


def run_float(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None):
    """The float layer's own forward, on other tensors."""
    return torch.func.functional_call(
        layer, {"weight": weight, **({"bias": bias} if bias is not None else {})}, x
    )


def network() -> nn.Module:
    """Two binary layers with every part, and a binary linear layer behind them."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(8, 3)
    return nn.Sequential(
        OrderedDict(
            first=convert(
                first,
                norm=nn.BatchNorm2d(4),
                shortcut=nn.Identity(),
                activation=adabin.Maxout(4),
                threshold=Threshold(4),
            ),
            second=convert(second, "bireal", norm=nn.BatchNorm2d(8), scale=xnorpp.ChannelScale(8)),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            last=convert(last, "xnor exact"),
        )
    )
