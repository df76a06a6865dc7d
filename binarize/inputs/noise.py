"""Whether images were drawn by a random generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.utils import _pytree as pytree

from binarize.inputs.arguments import Images

__all__ = ["looks_like_noise"]


# Neighbouring pixels of photographs, drawings and scans correlate by 0.5 and more, those of white noise by 0.
_LEAST_CORRELATION = 0.25
# Fewer pixels along a side tell nothing.
_LEAST_SIDE = 4
# Of signals, tokens and tables, which need not correlate, so many numbers tell how they are distributed.
_LEAST_NUMBERS = 256
# Mean, variance, skewness and kurtosis.
_NORMAL, _UNIFORM = (0.0, 1.0, 0.0, 3.0), (0.5, 1 / 12, 0.0, 1.8)


def looks_like_noise(batches: Sequence[Images]) -> str | None:
    """Why these inputs are no images to calibrate on ("white noise", "constant"), None where they may be."""
    for args, kwargs in batches:
        for value in pytree.tree_leaves((args, dict(kwargs))):
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
                continue
            if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                return "constant"
            if value.dim() >= 4 and min(value.shape[-2:]) >= _LEAST_SIDE:
                if _correlation(value) < _LEAST_CORRELATION:
                    return "white noise: its neighbouring pixels do not correlate"
            elif value.numel() >= _LEAST_NUMBERS and _is_generated(value):
                return "white noise: its numbers are spread as those of a random generator"
    return None


def _is_generated(values: Tensor) -> bool:
    """Whether numbers have the first four moments of torch.randn's or torch.rand's, as far as so many can tell."""
    x = values.detach().double().flatten()
    root = math.sqrt(x.numel())
    mean, variance = x.mean().item(), x.var().item()
    if variance <= 0:
        return False
    standard = (x - mean) / math.sqrt(variance)
    skew, kurtosis = standard.pow(3).mean().item(), standard.pow(4).mean().item()
    # (mean, variance, kurtosis) of the distribution, and the standard errors of all four for one number.
    for wanted, errors in ((_NORMAL, (1.0, 1.42, 2.45, 4.9)), (_UNIFORM, (0.29, 0.075, 1.0, 1.0))):
        found = (mean, variance, skew, kurtosis)
        if all(abs(f - w) < 5 * error / root for f, w, error in zip(found, wanted, errors)):
            return True
    return False


def _correlation(images: Tensor) -> float:
    """The larger of the horizontal and vertical correlations between neighbouring pixels."""
    x = images.detach().double()
    x = x - x.mean((-2, -1), keepdim=True)
    variance = x.square().mean().clamp_min(1e-30)
    across = (x[..., 1:] * x[..., :-1]).mean() / variance
    down = (x[..., 1:, :] * x[..., :-1, :]).mean() / variance
    return max(across.item(), down.item())
