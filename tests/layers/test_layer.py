from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from layer_tables import LAYERS, METHODS, channels, convert, made, norm_for, run_float
from torch import nn
from torch.nn import functional as F

from binarize.binarizers import adabin, bireal, bnn, ienet, irnet, reactnet, xnor, xnorpp
from binarize.errors import UsageError
from binarize.layers.classes import binary_class
from binarize.layers.conv import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryConv3d,
    BinaryConvTranspose1d,
    BinaryConvTranspose2d,
    BinaryConvTranspose3d,
)
from binarize.layers.layer import Threshold, is_binary
from binarize.layers.linear import BinaryLinear

torch.set_num_threads(1)

VECTORS = json.loads(
    (Path(__file__).parents[1] / "data" / "schemes_vectors.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
@pytest.mark.parametrize("key", ["conv_adabin", "conv_xnor", "conv_xnor with K", "conv_irnet"])
def test_convolution_equals_its_vectors(key, dtype, atol):
    expected = VECTORS[key.split(" ")[0]]
    conv = nn.Conv2d(2, 2, 2, padding=expected["pad"], bias=False).to(dtype)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(expected["W"], dtype=dtype))
    inputs = {
        "conv_adabin": adabin.AdaptiveInput(),
        "conv_xnor": bnn.SteSign(),
        "conv_xnor with K": xnor.MappedSign(),
        "conv_irnet": irnet.Ede(),
    }
    weights = {
        "conv_adabin": adabin.AdaptiveWeight(),
        "conv_xnor": xnor.ScaledSign(),
        "conv_xnor with K": xnor.ScaledSign(),
        "conv_irnet": irnet.LibraWeight(),
    }
    layer = BinaryConv2d.from_float(conv, weight_binarizer=weights[key], input_binarizer=inputs[key])
    if key == "conv_adabin":
        layer.input_binarizer.alpha.data.fill_(expected["alpha_a"])
        layer.input_binarizer.beta.data.fill_(expected["beta_a"])
    result = {"conv_xnor": "Y_no_K", "conv_xnor with K": "Y_with_K"}.get(key, "Y")
    y = layer(torch.tensor(expected["X"], dtype=dtype))
    torch.testing.assert_close(y, torch.tensor(expected[result], dtype=dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", LAYERS)
def test_output_is_the_float_layer_run_on_binary_tensors(kind, method):
    layer, x = made(kind)
    layer, x = layer.double(), x.double()
    binary = convert(copy.deepcopy(layer), method)
    wb = binary.weight_binarizer(binary.weight)
    a = x if binary.input_binarizer is None else binary.input_binarizer(x)
    expected = run_float(layer, a, wb, layer.bias)
    # Sums of at most 36 products of numbers about 1: 1e-12 is rounding.
    torch.testing.assert_close(binary(x), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(binary(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pad_value", [-1.0, 1.0])
@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv2d strided", "conv2d same", "conv3d"])
def test_pad_value_surrounds_the_binary_input(kind, pad_value):
    layer, x = made(kind)
    binary = convert(layer, "bnn", pad_value=pad_value)
    a = F.pad(bnn.SteSign()(x), binary._reversed_padding_repeated_twice, value=pad_value)
    inner = copy.copy(layer)
    inner.padding, inner._reversed_padding_repeated_twice = (
        0,
        [0] * len(binary._reversed_padding_repeated_twice),
    )
    expected = run_float(inner, a, bnn.SteSign()(layer.weight), layer.bias)
    # The order of a sum of whole numbers and a bias differs between processors: the last digit of values up to 64.
    torch.testing.assert_close(binary(x), expected, rtol=0, atol=8e-6)
    assert f"pad_value={pad_value:g}" in repr(binary)


def test_zero_padding_lies_outside_the_two_values():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    conv.weight.data.fill_(1.0)
    binary = convert(conv, "bnn")
    assert binary(torch.ones(1, 1, 2, 2)).tolist() == [[[[4.0, 4.0], [4.0, 4.0]]]]


@pytest.mark.parametrize("padding", [(2, 0), "same", "valid"])
def test_padding_is_what_the_layer_has_now(padding):
    """Encoders are made to dilate after they were built, by setting these attributes."""
    conv = nn.Conv2d(2, 3, 3, padding=1)
    conv.dilation, conv.padding = (2, 1), padding
    x = torch.ones(1, 2, 9, 8)
    for pad_value in (0.0, -1.0):
        assert convert(copy.deepcopy(conv), "bnn", pad_value=pad_value)(x).shape == conv(x).shape


def test_padding_mode_wins_over_pad_value():
    layer, x = made("conv2d reflect")
    assert torch.equal(convert(copy.deepcopy(layer), "bnn", pad_value=-1.0)(x), convert(layer, "bnn")(x))


def test_output_size_of_a_transposed_convolution():
    layer, x = made("conv_transpose2d")
    layer.output_padding = (0, 0)
    binary = convert(layer)
    assert binary(x).shape == (2, 6, 11, 9)
    assert binary(x, [12, 10]).shape == (2, 6, 12, 10)


def test_input_without_a_batch():
    layer, x = made("conv2d")
    binary = convert(layer)
    torch.testing.assert_close(binary(x[0]), binary(x)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_parts_act_in_their_order(kind):
    layer, x = made(kind)
    n_in, n_out, dim = channels(layer)
    shortcut = nn.Linear(n_in, n_out) if dim == -1 else nn.Conv2d(n_in, n_out, 1)
    parts = {
        "threshold": Threshold(n_in, dim),
        "scale": xnorpp.ChannelScale(n_out, dim),
        "norm": norm_for(layer),
        "shortcut": shortcut,
        "activation": adabin.Maxout(n_out, dim),
    }
    parts["threshold"].tau.data.normal_()
    parts["scale"].s.data.normal_()
    bias = layer.bias.detach().clone()
    binary = convert(layer, "bireal", **parts)
    a = bireal.ApproxSign()(parts["threshold"](x))
    values, alpha = bireal.ScaledSign().split(layer.weight)
    alpha = alpha.reshape(-1) if dim == -1 else alpha.reshape(1, -1, 1, 1)
    y = parts["scale"](run_float(layer, a, values, torch.zeros_like(bias)) * alpha)
    expected = parts["activation"](parts["norm"](y) + shortcut(x))
    torch.testing.assert_close(binary(x), expected, rtol=0, atol=1e-5)
    assert binary.bias is None
    assert torch.equal(parts["norm"].bias, bias)
    binary.shortcut_inside = binary.activation_inside = False
    torch.testing.assert_close(binary(x), parts["norm"](y), rtol=0, atol=1e-5)


def test_bias_is_added_after_the_scales():
    layer, x = made("conv2d")
    binary = convert(layer, "bireal", scale=xnorpp.ChannelScale(6, start=2.0))
    bias = layer.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(
        binary(x) - bias, 2 * (convert(nn_without_bias(layer), "bireal")(x)), rtol=0, atol=1e-5
    )


def nn_without_bias(layer: nn.Conv2d) -> nn.Conv2d:
    twin = copy.deepcopy(layer)
    twin.bias = None
    return twin


def test_bias_stays_where_the_norm_has_none():
    layer, _ = made("conv2d")
    binary = convert(layer, norm=nn.BatchNorm2d(6, affine=False))
    assert binary.bias is layer.bias


def test_frozen_bias_stays_frozen_in_the_norm():
    layer, _ = made("conv2d")
    layer.bias.requires_grad_(False)
    assert not convert(layer, norm=nn.BatchNorm2d(6)).norm.bias.requires_grad


def test_threshold_calibrates_to_the_mean_of_each_channel():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5) + torch.arange(3.0).view(3, 1, 1)
    threshold = Threshold(3)
    threshold.calibrate(x)
    torch.testing.assert_close(threshold(x).mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-6)


def test_norm_before_the_sign_takes_the_place_of_a_threshold():
    # XNOR-Net's order. A norm changes its statistics when run, so it must run once in a training step.
    layer, x = made("conv2d")
    binary = convert(layer, "bnn", threshold=nn.BatchNorm2d(4))
    binary(x).sum().backward()
    assert binary.threshold.num_batches_tracked.item() == 1
    assert binary.threshold.weight.grad is not None


def test_learned_output_scale_may_start_from_the_weight():
    layer, _ = made("conv_transpose2d grouped")
    parts = {"weight_binarizer": ienet.StandardSign(axis=1), "scale": ienet.OutputScale(6)}
    binary = binary_class(layer).from_float(layer, **parts)
    expected = layer.weight.abs().mean((0, 2, 3)).repeat(2)
    torch.testing.assert_close(binary.scale.s.detach(), expected.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["conv_transpose2d grouped", "conv_transpose1d"])
def test_scale_of_a_transposed_weight_belongs_to_its_output_axis(kind):
    layer, x = made(kind)
    binary = convert(layer, "bireal")
    alpha = layer.weight.abs().mean([i for i in range(layer.weight.dim()) if i != 1]).repeat(layer.groups)
    product = run_float(layer, bireal.ApproxSign()(x), layer.weight.sign(), torch.zeros_like(layer.bias))
    shape = (-1, *[1] * (x.dim() - 2))
    expected = product * alpha.view(shape) + layer.bias.view(shape)
    torch.testing.assert_close(binary(x), expected, rtol=0, atol=1e-5)


def test_rsign_and_rprelu_fit_in():
    layer, x = made("conv2d")
    binary = BinaryConv2d.from_float(
        layer,
        weight_binarizer=bireal.ScaledSign(),
        input_binarizer=reactnet.RSign(4),
        norm=nn.BatchNorm2d(6),
        activation=reactnet.RPReLU(6),
    )
    binary(x).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in binary.parameters())


def test_a_module_that_is_no_binarizer_of_ours_is_called_once():
    class Clipped(nn.Module):
        calls = 0

        def forward(self, w: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return bnn.SteSign()(w)

    layer, x = made("conv2d")
    binary = BinaryConv2d.from_float(layer, weight_binarizer=Clipped(), input_binarizer=bnn.SteSign())
    y = binary(x)
    y.sum().backward()
    assert binary.weight_binarizer.calls == 1
    assert torch.equal(y, convert(copy.deepcopy(layer), "bnn")(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_parameters_are_the_same_objects_under_the_same_names(kind):
    layer, _ = made(kind)
    before = dict(layer.named_parameters())
    binary = convert(layer)
    assert type(binary).__name__ == f"Binary{type(layer).__name__}"
    assert isinstance(binary, type(layer))
    assert is_binary(binary)
    assert not is_binary(layer)
    own = {name: p for name, p in binary.named_parameters() if "." not in name}
    assert own.keys() == before.keys()
    assert all(own[name] is before[name] for name in own)
    assert layer._modules == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_type_and_flags_are_kept(dtype):
    layer, x = made("conv2d")
    layer.to(dtype).eval()
    layer.weight.requires_grad_(False)
    layer.note = "the user's"
    binary = convert(layer, norm=nn.BatchNorm2d(6), activation=adabin.Maxout(6))
    assert {p.dtype for p in binary.parameters()} == {dtype}
    assert not any(module.training for module in binary.modules())
    assert not binary.weight.requires_grad
    assert binary.note == "the user's"
    y = binary(x.to(dtype))
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


def test_layer_on_the_meta_device_stays_there():
    with torch.device("meta"):
        layer = nn.Conv2d(4, 6, 3)
    binary = convert(layer, norm=nn.BatchNorm2d(6), scale=ienet.OutputScale(6))
    assert {p.device.type for p in binary.parameters()} == {"meta"}
    assert binary(torch.empty(1, 4, 5, 5, device="meta")).shape == (1, 6, 3, 3)


def test_hooks_move_along_and_their_handles_still_remove_them():
    layer, x = made("conv2d")
    calls = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: calls.append("before")),
        layer.register_forward_hook(lambda module, args, output: calls.append("after")),
        layer.register_full_backward_hook(lambda module, gin, gout: calls.append("backward")),
    ]
    binary = convert(layer)
    binary(x.requires_grad_()).sum().backward()
    assert calls == ["before", "after", "backward"]
    for handle in handles:
        handle.remove()
    binary(x)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv1d(1, 1, 1), BinaryConv1d),
        (nn.Conv2d(1, 1, 1), BinaryConv2d),
        (nn.Conv3d(1, 1, 1), BinaryConv3d),
        (nn.ConvTranspose1d(1, 1, 1), BinaryConvTranspose1d),
        (nn.ConvTranspose2d(1, 1, 1), BinaryConvTranspose2d),
        (nn.ConvTranspose3d(1, 1, 1), BinaryConvTranspose3d),
        (nn.Linear(1, 1), BinaryLinear),
        (type("Renamed", (nn.Conv2d,), {})(1, 1, 1), BinaryConv2d),
        (type("OwnMaths", (nn.Conv2d,), {"forward": lambda self, x: x})(1, 1, 1), None),
        (type("OwnMaths", (nn.Conv2d,), {"_conv_forward": lambda self, x, w, b: x})(1, 1, 1), None),
        (nn.LazyConv2d(1, 1), None),
        (nn.Bilinear(1, 1, 1), None),
        (nn.Embedding(1, 1), None),
        (nn.BatchNorm2d(1), None),
    ],
)
def test_binary_class_of_a_layer(layer, expected):
    assert binary_class(layer) is expected


def test_a_binary_layer_has_no_binary_class():
    assert binary_class(convert(nn.Linear(2, 2))) is None


def test_a_weight_that_nobody_knows_how_to_compute_has_no_binary_class():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    del layer.weight
    layer.weight = weight * 1
    assert binary_class(layer) is None


def test_from_float_of_another_class_is_refused():
    with pytest.raises(UsageError, match=r"BinaryConv2d.from_float takes Conv2d .*, not Linear"):
        BinaryConv2d.from_float(nn.Linear(2, 2), weight_binarizer=bnn.SteSign())
