from __future__ import annotations

import torch
from torch import nn

from binarize.binarizers.reactnet import RPReLU, RSign


def test_rsign_equals_its_vectors(vectors, tensor, atol, binarize_input, with_values):
    expected = vectors["a_rsign"]
    module = with_values(RSign(1), tau=expected["threshold"])
    y, dx = binarize_input(module)
    torch.testing.assert_close(y, tensor(expected["y"]), rtol=0, atol=0)
    torch.testing.assert_close(dx, tensor(expected["dx"]), rtol=0, atol=atol)
    torch.testing.assert_close(module.tau.grad, tensor([expected["d_threshold"]]), rtol=0, atol=atol)


def test_rprelu_equals_its_vectors(vectors, tensor, atol, binarize_input, with_values):
    expected = vectors["a_rprelu"]
    names = {"gamma": "gamma", "zeta": "zeta", "slope": "slope"}
    module = with_values(RPReLU(1), **{name: expected[key] for name, key in names.items()})
    y, dx = binarize_input(module)
    torch.testing.assert_close(y, tensor(expected["y"]), rtol=0, atol=atol)
    torch.testing.assert_close(dx, tensor(expected["dx"]), rtol=0, atol=atol)
    for name in names:
        gradient = module.get_parameter(name).grad
        torch.testing.assert_close(gradient, tensor([expected[f"d_{name}"]]), rtol=0, atol=atol)


def test_rsign_calibrates_to_the_mean_of_each_channel():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5) + torch.arange(3.0).view(3, 1, 1)
    module = RSign(3)
    module.calibrate(x)
    torch.testing.assert_close(module.tau, x.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)


def test_rsign_after_calibration_passes_gradients_as_wide_as_its_inputs():
    torch.manual_seed(0)
    sizes = torch.tensor([0.1, 1.0, 10.0])
    x = torch.randn(4, 3, 50, 50) * sizes.view(3, 1, 1)
    module = RSign(3)
    module.calibrate(x)
    torch.testing.assert_close(module.width, x.std((0, 2, 3), correction=0), rtol=1e-5, atol=0)
    x.requires_grad_()
    module(x).sum().backward()
    passed = (x.grad != 0).float().mean((0, 2, 3))
    # A normal variable lies within one deviation of its mean with probability 0.683.
    torch.testing.assert_close(passed, torch.full((3,), 0.683), rtol=0, atol=0.01)
    # d/dx of h(z) with z = (x - tau) / width: the area under h / width is that of h, 2, whatever the width.
    z = ((x - module.tau.view(3, 1, 1)) / module.width.view(3, 1, 1)).detach()
    wanted = (2 - 2 * z.abs()).clamp_min(0) / module.width.view(3, 1, 1)
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.tau.grad, -wanted.sum((0, 2, 3)), rtol=1e-4, atol=1e-2)


def test_channels_may_be_the_last_axis():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3)
    sign, bend = RSign(3, channel_dim=-1), RPReLU(3, channel_dim=-1)
    with torch.no_grad():
        sign.tau.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        bend.gamma.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(sign(x), torch.where(x >= sign.tau, 1.0, -1.0))
    z = x - bend.gamma
    torch.testing.assert_close(bend(x), torch.where(z > 0, z, 0.25 * z), rtol=1e-6, atol=0)


def test_rprelu_with_slope_zero_starts_as_relu():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(RPReLU(3, slope=0.0)(x), nn.functional.relu(x))
