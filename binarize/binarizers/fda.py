"""FDA-BNN: the derivative of a truncated Fourier series of the sign, and a small network beside the sign while it trains.

Xu, Han, Xu, Wang, Chen, Xu, Wang, Learning Frequency Domain Approximation for Binary Neural Networks, NeurIPS
2021, https://arxiv.org/abs/2103.00841; omega, the scale of the weights and the size of the network from BiBench's code
(https://arxiv.org/abs/2301.11233).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from binarize.binarizers.sign import Estimator, Levels, Pure, WeightBinarizer
from binarize.binarizers.statistics import mean_abs, wide

__all__ = ["FourierSign", "NoiseAdapter", "NoisyInput", "NoisyWeight"]


class FourierSign(Estimator):
    """sign(x), with the gradient 4 omega / pi sum_{i = 0..n} cos((2 i + 1) omega x).

    n grows from 9 to 18 during training; a schedule writes the buffer. The sum is computed in closed form,
    sin(2 (n + 1) omega x) / (2 sin(omega x)), whose limit at 0 is n + 1. It is 0 beyond half a period, |x| > pi / omega,
    where the series is a sign no longer; clip: beyond |x| = clip already, as some re-implementations have it.

    Source: the paper's Fourier approximation; omega = 0.1 from later implementations.
    """

    n: Tensor

    def __init__(self, n: int = 9, omega: float = 0.1, clip: float | None = None) -> None:
        super().__init__()
        self.omega = float(omega)
        self.clip = None if clip is None else float(clip)
        self.register_buffer("n", torch.tensor(float(n)))

    def derivative(self, x: Tensor) -> Tensor:
        wide_x = wide(x)
        half = math.pi / self.omega
        # Beyond, h is 0; the largest numbers have no sine.
        angle = wide_x.clamp(-half, half) * self.omega
        terms = self.n.to(angle.dtype) + 1
        below = angle.sin()
        ratio = (2 * terms * angle).sin_().div_(2 * below)
        total = torch.where(below == 0, terms, ratio).clamp_(-terms, terms)
        h = total.mul_(4 * self.omega / math.pi)
        h = h.mul_(wide_x.abs() <= (half if self.clip is None else min(half, self.clip)))
        return h.to(x.dtype)

    def extra_repr(self) -> str:
        clip = "" if self.clip is None else f", clip={self.clip:g}"
        return f"omega={self.omega:g}{clip}"


class NoiseAdapter(nn.Module):
    """relu(x W1) W2 + 0.1 sin(x) along the last axis: what the gradient of the series gets wrong, learned.

    d numbers pass through d // 64, at least one. W1 sees |x| up to 100, so that no x is too large. Shapes: (..., d) -> same.
    Source: the paper's noise adaptation module, with eta(x) = 0.1 sin(x).
    """

    # It helps to train; no network that has been trained needs it.
    training_only = True
    FACTOR = 64
    WAVE = 0.1
    LIMIT = 100.0

    def __init__(self, features: int) -> None:
        super().__init__()
        hidden = max(features // self.FACTOR, 1)
        self.down = nn.Linear(features, hidden, bias=False)
        self.up = nn.Linear(hidden, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x.clamp(-self.LIMIT, self.LIMIT)).relu())
        return y + x.sin() * self.WAVE


class NoisyInput(Pure):
    """sign(x) + alpha e(x) in training, with e a `NoiseAdapter` over the channels of each position; sign(x) in evaluation.

    alpha falls from 0.1 to 0 during training; a schedule writes the buffer. Shapes: (N, C, ...) -> same; channel_dim=-1
    for (..., C).
    """

    alpha: Tensor

    def __init__(self, channels: int, channel_dim: int = 1, estimator: Estimator | None = None) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.estimator = FourierSign() if estimator is None else estimator
        self.noise = NoiseAdapter(channels)
        self.register_buffer("alpha", torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.estimator(x)
        if not self.training:
            return out
        noise: Tensor = self.noise(x.movedim(self.channel_dim, -1)).movedim(-1, self.channel_dim)
        return out + self.alpha.to(noise.dtype) * noise

    def input_levels(self) -> Levels | None:
        return None if self.training else self.estimator.input_levels()


class NoisyWeight(WeightBinarizer):
    """scale (sign(w) + alpha e(w)) in training, with e a `NoiseAdapter` over each filter; scale sign(w) in evaluation.

    scale = mean |w| per filter, a constant in the backward pass. e is made when a layer gives its weight
    (`start_from_weight`); until then there is none.
    """

    alpha: Tensor

    def __init__(self, estimator: Estimator | None = None, axis: int = 0) -> None:
        super().__init__()
        self.estimator = FourierSign() if estimator is None else estimator
        self.axis = axis
        self.noise: NoiseAdapter | None = None
        self.register_buffer("alpha", torch.tensor(0.1))

    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Make the network for filters of this size."""
        self.noise = NoiseAdapter(w.numel() // w.shape[axis]).to(device=w.device, dtype=w.dtype)
        self.noise.train(self.training)

    def split(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """(sign(w), with noise in training; scale)."""
        values: Tensor = self.estimator(w)
        if self.training and self.noise is not None:
            rows = w.transpose(0, self.axis)
            noise = self.noise(rows.flatten(1)).view(rows.shape).transpose(0, self.axis)
            values = values + self.alpha.to(noise.dtype) * noise
        return values, mean_abs(w.detach(), self.axis)
