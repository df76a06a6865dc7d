"""Windows: their sums against torch's own layers, their JSON, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.bnn import SteSign
from binarize.errors import UsageError
from binarize.layers.classes import binary_class
from binarize.layers.layer import BinaryLayer
from binarize.packed.window import Window

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3, bias=False), (2, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, dilation=2, groups=2, bias=False), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), (1, 2), (2, 0), bias=False), (2, 4, 7, 6)),
    "conv2d same": (nn.Conv2d(4, 6, 2, padding="same", bias=False), (2, 4, 7, 6)),
    "conv2d reflect": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", bias=False), (2, 4, 7, 6)),
    "conv2d circular": (nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular", bias=False), (2, 4, 7, 6)),
    "conv3d": (nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), bias=False), (1, 4, 3, 5, 4)),
    "transpose1d": (nn.ConvTranspose1d(4, 6, 3, 2, 1, output_padding=1, bias=False), (2, 4, 5)),
    "transpose2d": (nn.ConvTranspose2d(4, 6, 3, (2, 3), 1, groups=2, bias=False), (2, 4, 5, 4)),
    "transpose3d": (nn.ConvTranspose3d(4, 6, 2, 2, dilation=2, bias=False), (1, 4, 3, 2, 2)),
}
every_layer = pytest.mark.parametrize("name", list(LAYERS))


def binary(name: str) -> tuple[BinaryLayer, Tensor]:
    """The binary layer, whose weight is that of the float one, and an input for it."""
    layer, shape = LAYERS[name]
    cls = binary_class(layer)
    assert cls is not None
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return cls.from_float(layer, weight_binarizer=SteSign()), x


def slid(window: Window, x: Tensor, weight: Tensor, **options: Any) -> Tensor:
    return window.slide(window.mirrored(x), window.filters_first(weight), **options)


@every_layer
def test_a_window_slides_as_the_layer_does(name: str) -> None:
    layer, x = binary(name)
    window = Window.of(layer)
    weight = layer.weight.detach()
    assert window.filters_first(weight).shape == window.weight_shape
    assert torch.equal(window.layer_order(window.filters_first(weight)), weight)
    expected = LAYERS[name][0](x)
    torch.testing.assert_close(slid(window, x, weight), expected, rtol=1e-5, atol=1e-6)


@every_layer
def test_a_window_survives_json(name: str) -> None:
    window = Window.of(binary(name)[0])
    assert Window.from_json(json.loads(json.dumps(window.to_json()))) == window


def test_json_leaves_out_what_goes_without_saying() -> None:
    window = Window("conv", 64, 128, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    said = {"kind": "conv", "in_channels": 64, "out_channels": 128, "kernel": (3, 3), "padding": (1, 1, 1, 1)}
    assert window.to_json() == said


def test_output_size_of_a_transposed_layer() -> None:
    layer, x = binary("transpose1d")
    float_layer, window = LAYERS["transpose1d"][0], Window.of(layer)
    for size in (9, 10):
        expected = float_layer(x, [size])
        found = slid(window, x, layer.weight.detach(), size=[size])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match=r"output size \[11\]: axis 0 may be 9 to 10"):
        slid(window, x, layer.weight.detach(), size=[11])


def test_timms_same_padding_goes_by_the_size_of_the_input() -> None:
    from timm.layers import Conv2dSame

    conv = Conv2dSame(4, 6, 3, 2, bias=False)
    cls = binary_class(conv)
    assert cls is not None
    window = Window.of(cls.from_float(conv, weight_binarizer=SteSign()))
    assert window.padding_mode == "same"
    for size in (7, 8):
        x = torch.randn(1, 4, size, size, generator=torch.Generator().manual_seed(size))
        torch.testing.assert_close(slid(window, x, conv.weight.detach()), conv(x), rtol=1e-5, atol=1e-6)
        assert window.geometry(x, 0).output_size(size, size) == tuple(conv(x).shape[2:])


WRONG: dict[str, dict[str, Any]] = {
    "unknown key": {"kind": "linear", "in_channels": 1, "out_channels": 1, "evil": 1},
    "unknown kind": {"kind": "eval", "in_channels": 1, "out_channels": 1},
    "no channels": {"kind": "linear"},
    "negative": {"kind": "linear", "in_channels": -1, "out_channels": 1},
    "text": {"kind": "linear", "in_channels": "1", "out_channels": 1},
    "truth": {"kind": "linear", "in_channels": True, "out_channels": 1},
    "fraction": {"kind": "conv", "in_channels": 1, "out_channels": 1, "kernel": [1.5]},
    "four axes": {"kind": "conv", "in_channels": 1, "out_channels": 1, "kernel": [1, 1, 1, 1]},
    "few sides": {"kind": "conv", "in_channels": 1, "out_channels": 1, "kernel": [1, 1], "padding": [1, 1]},
    "groups": {"kind": "conv", "in_channels": 4, "out_channels": 6, "kernel": [1], "groups": 4},
    "mode": {"kind": "conv", "in_channels": 1, "out_channels": 1, "kernel": [1], "padding_mode": "x"},
    "no kernel": {"kind": "conv", "in_channels": 1, "out_channels": 1},
    "nested": {"kind": ["conv"], "in_channels": 1, "out_channels": 1},
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_describes_no_layer_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        Window.from_json(WRONG[name])
