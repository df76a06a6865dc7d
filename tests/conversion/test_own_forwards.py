"""Layers whose class has a forward of its own, layers that functions hold, and sizes said once for all axes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.errors import CheckError, SourceError
from binarize.layers.conv import BinaryConv2d
from binarize.layers.foreign import BinaryConv2dSame


class Padded(nn.Conv2d):
    """Pads more behind than in front, whatever it was told of padding."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Same(nn.Conv2d):
    """Pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for size in reversed(x.shape[2:]):
            total = max((-(-size // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride)


class Static(nn.Conv2d):
    """Pads by a module that it holds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pads = nn.ZeroPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pads(x.to(self.weight.dtype)), self.weight, self.bias, self.stride)


def chain(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), layer, nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()  # fmt: skip


def kept(model: nn.Module, x: Tensor) -> Tensor:
    """What the layer at 1 gives on the signs of what it reads, by the float class itself."""
    signs = torch.where(model[0](x) >= 0, 1.0, -1.0)
    return model[1](signs)


@pytest.mark.parametrize(
    "layer, kind",
    [
        (Padded(16, 16, 2, bias=False), BinaryConv2d),
        (Same(16, 16, 3, stride=2, bias=False), BinaryConv2dSame),
        (Static(16, 16, 3, stride=2, bias=False), BinaryConv2d),
    ],
)
def test_a_layer_that_only_pads_computes_its_padding_on_signs(
    layer: nn.Conv2d, kind: type, tmp_path: Path
) -> None:
    layer.weight.data.sign_()
    model, x = chain(layer), nets.pictures(4, 9)
    binary = binarize.convert(model, "bnn", example_input=x, calibrate=False)
    assert type(binary[1]) is kind
    assert torch.equal(binary[1](binary[0](x)), kept(model, x))
    binarize.save(binary, tmp_path / "saved")
    again = binarize.load(
        tmp_path / "saved", model=chain(type(layer)(16, 16, layer.kernel_size, layer.stride, bias=False))
    )
    assert torch.equal(again(x), binary(x))
    binarize.pack(binary, tmp_path / "packed.safetensors")
    alone = binarize.load_packed(tmp_path / "packed.safetensors")
    for size in (9, 10):
        x = nets.pictures(2, size)
        torch.testing.assert_close(alone(x), binary.eval()(x))


class Ghost(nn.Conv2d):
    """A container that inherits a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1)
        self.first = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.cheap = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)


def test_a_container_that_inherits_a_convolution_is_opened() -> None:
    planned = binarize.plan(chain(Ghost(16)), "bireal", example_input=nets.pictures(2, 8))
    assert [d.layer.name for d in planned.decisions if d.binary] == ["1.first"]
    assert planned["1"].why == "its own weight is not used: its forward runs the layers inside it"


class _Call:
    """An object that holds a layer and is copied."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x)


class _Shared(_Call):
    """One that is not."""

    def __deepcopy__(self, memo: Any) -> _Shared:
        return self


class _Held(nn.Module):
    """A layer that runs through an attribute made of it."""

    def __init__(self, held: Callable[[_Held, nn.Module], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.run = held(self, self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.mark.parametrize(
    "held",
    [
        lambda self, conv: lambda x: conv(x),
        lambda self, conv: lambda x: self.conv(x),
        lambda self, conv: lambda x, layer=conv: layer(x),
        lambda self, conv: functools.partial(lambda layer, x: layer(x), conv),
        lambda self, conv: (lambda inner: lambda x: inner(x).relu())(lambda x: conv(x)),
        lambda self, conv: (lambda steps: lambda x: steps[1](steps[0](x)))([conv, torch.relu]),
    ],
)
def test_functions_that_hold_a_layer_hold_its_binary_copy(held: Any) -> None:
    model, x = chain(_Held(held)), nets.pictures(2, 8)
    before = model(x)
    binary = binarize.convert(model, "bireal", example_input=x, calibrate=False)
    assert isinstance(binary[1].conv, BinaryConv2d)
    binary.train()(x).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert binary[1].conv.weight.grad is not None and torch.equal(model(x), before)


def test_a_layer_that_no_copy_and_no_swap_reaches_is_refused_by_name() -> None:
    x = nets.pictures(2, 8)
    with pytest.raises(SourceError, match=r"still computes with its 1\.conv\.weight"):
        binarize.convert(chain(_Held(lambda self, conv: _Shared(conv))), "bireal", example_input=x)
    with pytest.raises(
        CheckError,
        match=r"1\.conv is binary now, and an object of",
    ):
        binarize.convert(chain(_Held(lambda self, conv: _Call(conv))), "bireal", example_input=x)


def test_one_size_for_all_axes_is_a_size_for_each(tmp_path: Path) -> None:
    x = nets.pictures(2, 16)

    def model(said: Any, pad: Any) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=said, padding=pad), nn.Conv2d(16, 16, 3, stride=said, padding=pad, dilation=pad),
            nn.ReLU(), nn.MaxPool2d(said), nn.Flatten(), nn.Linear(64, 4),
        ).eval()  # fmt: skip

    listed, plain = (
        binarize.convert(model(*sizes), "bireal", example_input=x, shortcuts="every")
        for sizes in (([2], [1]), (2, 1))
    )
    assert torch.equal(listed(x), plain(x))
    binarize.pack(listed, tmp_path / "packed.safetensors")
    packed = binarize.load_packed(tmp_path / "packed.safetensors")
    torch.testing.assert_close(binarize.fuse(packed, x)(x), plain(x))
