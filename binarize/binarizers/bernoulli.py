"""Naive Bernoulli networks: weights and activations are ±1 with a probability until they are hardened.

A weight has a real-valued latent W and is +1 with probability sigmoid(W / T), so its mean is theta = tanh(W / 2T). What
layers hand on are means of activations. A hardened weight is +1 where W > 0, else -1; a hardened activation is a sign.
Layers with such a weight, and what they compute, are in `binarize/bernoulli/`.

Sources: Peters and Welling, Probabilistic Binary Neural Networks, 2018, https://arxiv.org/abs/1809.03368; Soudry, Hubara,
Meir, Expectation Backpropagation, NeurIPS 2014.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.sign import Estimator, FilterLevels, Levels, Pure, WeightBinarizer, sign
from binarize.binarizers.statistics import per_channel

__all__ = [
    "Averages",
    "InputSign",
    "LogitScale",
    "MaxPool",
    "Means",
    "OutputSign",
    "Probabilities",
    "hard_forward",
    "latent_start",
    "strict_sign",
]

# Latents of a certain weight stay within this: beyond, no gradient moves them any more.
_MOST_CERTAIN = 1e-3


def strict_sign(w: Tensor) -> Tensor:
    """+1 where w > 0, else -1: a weight that is as likely one as the other becomes -1."""
    return torch.where(w > 0, 1, -1).to(w.dtype)


def latent_start(w: Tensor, confidence: float | None) -> Tensor:
    """Latents from a float weight, `confidence` deviations of it a unit; None draws them, clipped, without regard to it.

    Drawn ones are the logits of N(1/2, 1/2), and about half of them are nearly certain.
    """
    if confidence is None:
        p = 0.5 + 0.5**0.5 * torch.randn(w.shape, dtype=torch.float32)
        return torch.logit(p.clamp(_MOST_CERTAIN, 1 - _MOST_CERTAIN)).to(w)
    deviation = w.float().std() if w.numel() > 1 else w.float().abs().mean()
    return w * (confidence / deviation.clamp_min(1e-12)).to(w)


class _HardForward(torch.autograd.Function):
    """The hard value, with the gradient of the soft one."""

    @staticmethod
    def forward(ctx: object, soft: Tensor, hard: Tensor) -> Tensor:
        return hard

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def hard_forward(soft: Tensor, hard: Tensor) -> Tensor:
    """`hard`, whose gradient is that of `soft`."""
    found: Tensor = _HardForward.apply(soft, hard)
    return found


class _Softened(nn.Module):
    """What is soft until its network is hardened; `soft` is stored with the model."""

    soft: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("soft", torch.tensor(True))

    @property
    def is_soft(self) -> bool:
        """Whether it still gives means instead of signs."""
        return bool(self.soft)


class Probabilities(_Softened, WeightBinarizer):
    """W -> tanh(W / 2T), the mean of a weight that is +1 with probability sigmoid(W / T); its strict sign once hardened.

    `reads`       what the layer makes of its sums: "sign", the probability of a sign, or "sum", their expectation
    `forward`     how that probability is computed: auto, clt, edge4, exact; `gradient` likewise, or same
    `confidence`  of the start from float weights; none draws the start
    `centring`    whether each channel's sums are compared with their mean over the batch, plus a learned threshold
    Entries where `frozen` holds are hard already. Shapes: (O, ...) -> same.
    """

    scales_weights = True
    frozen: Tensor
    # "none" or "ste": whether frozen weights are still trained.
    frozen_gradient = "none"

    def __init__(
        self,
        forward: str = "auto",
        gradient: str = "same",
        reads: str = "sign",
        confidence: float | None = 1.0,
        temperature: float = 1.0,
        centring: bool = True,
        axis: int = 0,
    ) -> None:
        super().__init__()
        self.forward_way, self.gradient_way, self.reads, self.centring = forward, gradient, reads, centring
        self.confidence, self.temperature, self.axis = confidence, temperature, axis
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    stored = (0, 0)

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Put the latents in place of a float weight."""
        w.copy_(latent_start(w, self.confidence))
        self.frozen = torch.zeros(w.shape, dtype=torch.bool, device=w.device)

    def split(self, w: Tensor) -> tuple[Tensor, None]:
        """(means, no scale)."""
        if not self.is_soft:
            return strict_sign(w), None
        mean = torch.tanh(w / (2 * self.temperature))
        if self.frozen.shape != w.shape or not bool(self.frozen.any()):
            return mean, None
        hard = strict_sign(w)
        if self.frozen_gradient == "ste":
            hard = hard_forward(mean, hard)
        return torch.where(self.frozen, hard, mean), None

    def filter_levels(self, w: Tensor) -> FilterLevels | None:
        return None

    # The mask belongs to the whole weight.
    per_filter = False

    def extra_repr(self) -> str:
        return f"reads={self.reads}, forward={self.forward_way}, gradient={self.gradient_way}"


class Means(_Softened, Estimator):
    """Passes means on, and signs what it reads once hardened. Shapes: any -> same."""

    def derivative(self, x: Tensor) -> Tensor:
        """1 on [-1, 1], else 0; once hardened."""
        return (x.abs() <= 1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.is_soft else super().forward(x)

    def input_levels(self) -> Levels | None:
        return None if self.is_soft else Levels()


class Averages(Pure):
    """Passes on averages of means: an expectation needs no sign. Shapes: any -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class InputSign(ApproxSign):
    """sign(x - threshold) of the model's input, or of any real numbers.

    Without a number the threshold is each channel's mean, found by calibration. Shapes: (N, C, ...) -> same.
    """

    tau: Tensor

    def __init__(self, channels: int, channel_dim: int = 1, threshold: float | None = None) -> None:
        super().__init__()
        self.channel_dim, self.given = channel_dim, threshold
        self.register_buffer("tau", torch.full((channels,), threshold or 0.0))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set the threshold to the mean of each channel, unless it was given."""
        if self.given is None:
            dims = [axis for axis in range(x.dim()) if axis != self.channel_dim % x.dim()]
            self.tau.copy_(x.float().mean(dims) if dims else x.float())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - per_channel(self.tau, x, self.channel_dim))

    def input_levels(self) -> Levels | None:
        return Levels(threshold=self.tau)


class OutputSign(_Softened):
    """Signs a hardened layer's sums for a reader that is not binary; before, it passes means on. Shapes: any -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.is_soft else sign(x)


class MaxPool(_Softened, nn.MaxPool2d):
    """1 - prod(1 - P), the probability that any value of a window is +1, on means; once hardened, the largest value.

    What lies outside the image is -1. Shapes: (N, C, H, W) -> (N, C, H', W').
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> None:
        nn.MaxPool2d.__init__(self, kernel_size, stride, padding, dilation)
        self.register_buffer("soft", torch.tensor(True))

    def hardened(self) -> nn.Module:
        """What it is once hardened, without what it was before."""
        return nn.MaxPool2d(self.kernel_size, self.stride, self.padding, self.dilation).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_soft:
            return nn.MaxPool2d.forward(self, x)
        sides = [side for axis in reversed(_two(self.padding)) for side in (axis, axis)]
        x = F.pad(x, sides, value=-1.0)
        windows = x
        for axis, (size, step, gap) in enumerate(
            zip(_two(self.kernel_size), _two(self.stride), _two(self.dilation))
        ):
            reach = gap * (size - 1) + 1
            windows = windows.unfold(2 + axis, reach, step)[..., ::gap]
        return 1 - 2 * ((1 - windows) / 2).flatten(4).prod(-1)


def _two(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


class LogitScale(nn.Module):
    """y * |s|, one learned number for sums that become logits; starts at 4 / sqrt(fan-in). Shapes: any -> same."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.ones(()))

    @torch.no_grad()
    def start_from_weight(self, w: Tensor, axis: int) -> None:
        """Start by the layer's fan-in."""
        self.s.fill_(4 / (w.numel() / w.shape[axis]) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.s.abs()
