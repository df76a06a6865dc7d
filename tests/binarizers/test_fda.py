"""FDA-BNN: where the gradient of the series ends, and the noise beside the sign."""

from __future__ import annotations

import math

import torch

from binarize.binarizers.fda import FourierSign, NoiseAdapter, NoisyInput, NoisyWeight


def test_the_gradient_ends_with_half_a_period_of_the_series() -> None:
    half = math.pi / 0.1
    x = torch.tensor([-half - 0.01, -half + 0.01, 0.0, half - 0.01, half + 0.01], dtype=torch.float64)
    h = FourierSign().derivative(x)
    assert h[0] == h[4] == 0
    assert h[2] == 4 * 0.1 * 10 / math.pi
    assert h[1] == h[3] < 0
    assert FourierSign(clip=1).derivative(torch.tensor([1.0, 1.1])).ne(0).tolist() == [True, False]


def test_noise_is_a_small_network_and_a_wave() -> None:
    noise = NoiseAdapter(130)
    assert (noise.down.weight.shape, noise.up.weight.shape) == ((2, 130), (130, 2))
    x = torch.randn(3, 130)
    expected = (x @ noise.down.weight.T).relu() @ noise.up.weight.T + 0.1 * x.sin()
    torch.testing.assert_close(noise(x), expected, rtol=1e-6, atol=1e-6)


def test_inputs_have_noise_in_training_alone_and_it_learns() -> None:
    binarizer = NoisyInput(3)
    x = torch.randn(2, 3, 4, 4)
    by_pixel = binarizer.noise(x.movedim(1, -1)).movedim(-1, 1)
    y = binarizer(x)
    torch.testing.assert_close(y, torch.where(x < 0, -1.0, 1.0) + 0.1 * by_pixel, rtol=1e-6, atol=1e-6)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in binarizer.noise.parameters())
    binarizer.alpha.fill_(0)
    assert torch.equal(binarizer(x), binarizer.eval()(x))
    assert binarizer(x).unique().tolist() == [-1, 1]


def test_filters_have_noise_in_training_alone() -> None:
    binarizer, w = NoisyWeight(), torch.randn(4, 3, 3, 3)
    assert binarizer.split(w)[0].unique().tolist() == [-1, 1]
    binarizer.start_from_weight(w, 0)
    assert binarizer.noise is not None and binarizer.noise.down.in_features == 27
    values, scale = binarizer.split(w)
    expected = torch.where(w < 0, -1.0, 1.0) + 0.1 * binarizer.noise(w.flatten(1)).view(w.shape)
    torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(scale.flatten(), w.abs().flatten(1).mean(1))
    assert binarizer.eval().split(w)[0].unique().tolist() == [-1, 1]


def test_filters_along_the_second_axis() -> None:
    w = torch.randn(4, 3, 2, 2)
    binarizer = NoisyWeight(axis=1)
    binarizer.start_from_weight(w, 1)
    other = NoisyWeight()
    other.noise = binarizer.noise
    assert torch.equal(binarizer.split(w)[0], other.split(w.transpose(0, 1))[0].transpose(0, 1))
