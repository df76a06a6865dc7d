"""Formulas of methods that are near: moments through BatchNorm, a relaxed sample of a sign, expectation back-propagation.

    sign_of_gaussian       the mean and variance of sign(z), z ~ N(m, v)      Roth et al., 2019, and Peters and Welling, 2018
    stochastic_batch_norm  moments through BatchNorm, whose variance counts both that of means and the mean variance
    binary_concrete        tanh((logit q + logit u) / 2T), a sample of ±1 that has a gradient
    ebp_output, ebp_step   Expectation Backpropagation: no rate, one sample at a time

Sources: Peters and Welling, https://arxiv.org/abs/1809.03368; Roth, Schindler, Froening, Pernkopf, Training Discrete-Valued
Neural Networks with Sign Activations Using Weight Distributions, ECML 2019; Soudry, Hubara, Meir, NeurIPS 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "binary_concrete",
    "ebp_moments",
    "ebp_output",
    "ebp_step",
    "sign_of_gaussian",
    "stochastic_batch_norm",
]


def sign_of_gaussian(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, variance) of the sign. Shapes: any -> the same."""
    signed = torch.erf(mean / (2 * variance).sqrt())
    return signed, 1 - signed.square()


def stochastic_batch_norm(
    mean: Tensor, variance: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Both moments behind a BatchNorm over the batch. Shapes: (N, C, ...) each, gamma and beta (C,) -> (N, C, ...) each."""
    axes = [0, *range(2, mean.dim())]
    shape = [1, -1, *[1] * (mean.dim() - 2)]
    count = mean.numel() // mean.shape[1]
    centre = mean.mean(axes, keepdim=True)
    spread = (variance + (mean - centre).square()).sum(axes, keepdim=True) / (count - 1)
    factor = gamma.view(shape) * (spread + eps).rsqrt()
    return (mean - centre) * factor + beta.view(shape), variance * factor.square()


def binary_concrete(q: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """A relaxed sample of a value that is +1 with probability q; its sign is a sample. Shapes: the same three times."""
    return torch.tanh((torch.logit(q) + torch.logit(uniform)) / (2 * temperature))


def ebp_moments(weight: Tensor, inputs: Tensor, random: bool = True) -> tuple[Tensor, Tensor]:
    """(mean, variance) of the sums of one sample, over the root of the fan-in.

    Without `random` inputs are numbers, and their squares stand for the ones of signs. Shapes: (O, I), (I,) -> (O,) each.
    """
    squares = torch.ones_like(inputs) if random else inputs.square()
    count = len(inputs)
    mean = weight @ inputs / math.sqrt(count)
    return mean, (squares - weight.square() * inputs.square()).sum(1) / count


def ebp_output(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Delta of output units with targets ±1: the slope of log P(sign = target). Shapes: (O,) each -> (O,)."""
    density = torch.exp(-mean.square() / (2 * variance)) / (2 * math.pi * variance).sqrt()
    return target * density / torch.special.ndtr(target * mean / variance.sqrt())


def ebp_step(h: Tensor, delta: Tensor, inputs: Tensor) -> Tensor:
    """The latents after one sample; a weight's mean is tanh(h). Shapes: (O, I), (O,), (I,) -> (O, I)."""
    return h + torch.outer(delta, inputs) / math.sqrt(len(inputs))
