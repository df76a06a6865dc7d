from __future__ import annotations

import nets
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import binarize
from binarize.binarizers.ienet import Iee, InputIee, MultiSign, OutputMultiSign, OutputScale, StandardSign
from binarize.layers.conv import BinaryConv2d
from binarize.packed.freeze import frozen_record


def test_weights_equal_their_vectors(vectors, tensor, atol, binarize_weight, with_values):
    expected = vectors["w_ienet"]
    wb, dw = binarize_weight(StandardSign(with_values(Iee(), t=expected["t"], k=expected["k"])))
    torch.testing.assert_close(wb, tensor(expected["Wb"]), rtol=0, atol=0)
    torch.testing.assert_close(dw, tensor(expected["dW"]), rtol=0, atol=10 * atol)


def test_output_scale_starts_at_the_mean_magnitude_of_the_filters(vectors, tensor, weight, atol):
    scale = OutputScale(2).to(weight.dtype)
    scale.start_from_weight(weight, axis=0)
    torch.testing.assert_close(scale.s.detach(), tensor(vectors["w_ienet"]["alpha_init"]), rtol=0, atol=atol)


def multi_sign(dtype, b, s):
    module = MultiSign(b.shape[1], thresholds=len(b)).to(dtype)
    with torch.no_grad():
        module.b.copy_(b)
        module.s.copy_(s[1:])
    return module


@pytest.mark.parametrize("channel", [0, 1])
def test_convolution_of_the_sum_equals_the_sum_of_convolutions(vectors, tensor, dtype, atol, channel):
    # The vectors have one factor per output channel; a scalar factor gives them one channel at a time.
    expected = vectors["conv_ienet_K2"]
    s = tensor(expected["s"])[:, channel]
    x = multi_sign(dtype, tensor(expected["b"]), s)(tensor(expected["X"]))
    wb = torch.where(tensor(expected["W"]) >= tensor(expected["W"]).mean((1, 2, 3), keepdim=True), 1.0, -1.0)
    y = F.conv2d(x, wb.to(dtype), padding=expected["pad"])[:, channel] * expected["alpha"][channel]
    torch.testing.assert_close(y, tensor(expected["Y"])[:, channel], rtol=0, atol=10 * atol)


def test_planes_times_factors_are_the_output():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    module = MultiSign(3, thresholds=3)
    with torch.no_grad():
        module.b.normal_()
        module.s.copy_(torch.tensor([0.5, 0.25]))
    planes = module.planes(x)
    assert [set(plane.unique().tolist()) for plane in planes] == [{-1.0, 1.0}] * 3
    total = planes[0] + 0.5 * planes[1] + 0.25 * planes[2]
    torch.testing.assert_close(module(x), total, rtol=0, atol=1e-6)


def test_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x)
    b = torch.randn(2, 3, dtype=torch.float64)
    module = multi_sign(torch.float64, b, torch.tensor([1.0, 0.5]))
    module(x).backward(g)
    r = torch.sqrt(x.detach().flatten(1).var(1) + 1e-5).view(2, 1, 1)
    h = [InputIee().double().derivative((x.detach() + bk.view(3, 1)) / r) / r for bk in b]
    torch.testing.assert_close(x.grad, g * (h[0] + 0.5 * h[1]), rtol=0, atol=1e-10)
    db = torch.stack([(g * h[0]).sum((0, 2)), (g * 0.5 * h[1]).sum((0, 2))])
    torch.testing.assert_close(module.b.grad, db, rtol=0, atol=1e-10)
    second = torch.where(x.detach() + b[1].view(3, 1) >= 0, 1.0, -1.0)
    torch.testing.assert_close(module.s.grad, (g * second).sum().view(1), rtol=0, atol=1e-10)


def test_a_layer_with_factors_of_each_output_channel_equals_its_vectors(vectors, tensor, dtype, atol):
    expected = vectors["conv_ienet_K2"]
    conv = nn.Conv2d(2, 2, 2, padding=expected["pad"], bias=False).to(dtype)
    with torch.no_grad():
        conv.weight.copy_(tensor(expected["W"]))
    binarizer = OutputMultiSign(2, thresholds=2, out_channels=2).to(dtype)
    with torch.no_grad():
        binarizer.b.copy_(tensor(expected["b"]))
        binarizer.s.copy_(tensor(expected["s"])[1:])
    layer = BinaryConv2d.from_float(
        conv, weight_binarizer=StandardSign(), input_binarizer=binarizer, scale=OutputScale(2)
    )
    x = tensor(expected["X"]).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, tensor(expected["Y"]), rtol=0, atol=10 * atol)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    # One plane at a time: ds of a channel is what its second plane adds there.
    with torch.no_grad(), binarizer.only(1):
        plane = layer.multiply(layer.operand(x), layer.binarized_weight()[0], None)
    second = (2 * y.detach() * plane * layer.scale.s.view(1, 2, 1, 1)).sum((0, 2, 3))
    torch.testing.assert_close(binarizer.s.grad[0], second.detach(), rtol=1e-5, atol=1e-5)


def test_factors_of_each_output_channel_are_packed():
    rules = {
        "schema": 1,
        "name": "ienet_outputs",
        "extends": "ienet",
        "scheme": {"input": {"part": "ienet.OutputMultiSign", "thresholds": 3}},
    }
    images = nets.pictures(4)
    model = binarize.convert(
        nets.seeded(nets.BasicBlocks), rules=rules, example_input=images, calibrate=False
    ).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, OutputMultiSign):
                assert layer.s.shape == (2, 16) or layer.s.shape == (2, 32)
                layer.s.uniform_(-1, 1)
                layer.b.uniform_(-0.5, 0.5)
        frozen = binarize.freeze(model, images)
        record = frozen_record(frozen)
        assert record is not None and not record.kept
        torch.testing.assert_close(frozen(images), model(images), rtol=1e-4, atol=1e-4)
