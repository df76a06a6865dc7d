"""Scale and shift of every channel, so that a binary layer's output comes nearest to the float layer's.

With u the normalized output of the binary layer and t the float layer's, per channel over images and positions:

    least squares    scale = cov(u, t) / var(u)           the smallest squared error
    variance         scale = ±sqrt(var(t) / var(u))       the float layer's own spread, with the sign of cov(u, t)
    shift = mean(t) - scale mean(u)                       in both

Where a shortcut v with a factor of its own is added, least squares fits both factors: C [scale, factor] = c, with C the
covariances of (u, v) and c those with t.
"""

from __future__ import annotations

from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn

from binarize.binarizers.statistics import per_channel
from binarize.binarizers.xnorpp import ChannelScale
from binarize.calibration.sites import NORMS
from binarize.layers.layer import BinaryLayer

__all__ = [
    "Fit",
    "affine",
    "channel_dim",
    "fit_classifier",
    "fit_layer",
    "fit_norm",
    "fit_with_shortcut",
    "has_affine",
    "keeps_statistics",
    "normalized",
    "set_affine",
    "take_statistics",
]

Fit = Literal["least-squares", "variance"]

# Channels that vary less, compared with their mean square, tell no scale.
_FLAT = 1e-8
# Shares of the product of two variances that are left of a determinant where each follows from the other.
_COLLINEAR = 1e-6
# Numbers that are held in float64 at a time.
_ELEMENTS = 1 << 23
# A filter's scale is never made smaller than this share of what it was: a weight of zeros has no signs.
_LEAST = 1e-3


def affine(u: Tensor, t: Tensor, dim: int, fit: Fit = "least-squares") -> tuple[Tensor, Tensor, Tensor]:
    """(scale, shift, whether the channel varies at all) that lead from `u` to `t` along the channels `dim`.

    Shapes: u and t the same, any -> (C,) each, in float64.
    """
    mean_a, mean_b, var_a, var_b, covariance = _moments(u, t, dim)
    alive = var_a > _FLAT * (mean_a.square() + var_a) + torch.finfo(torch.float64).tiny
    divisor = torch.where(alive, var_a, torch.ones_like(var_a))
    if fit == "least-squares":
        scale = covariance / divisor
    else:
        # The channel may run against the float one: a norm's own scale may be negative.
        scale = torch.where(covariance < 0, -1.0, 1.0) * (var_b / divisor).sqrt()
    scale = torch.where(alive, scale, torch.ones_like(scale))
    return scale, mean_b - scale * mean_a, alive


def _moments(u: Tensor, t: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Means of u and t, their variances, their covariance, per channel, in float64; some images at a time."""
    step = max(1, int(_ELEMENTS * len(u) / max(u.numel(), 1)))
    count, sums = 0, torch.zeros(5, u.shape[dim], dtype=torch.float64, device=u.device)
    for x, y in zip(u.split(step), t.split(step)):
        a, b = (part.movedim(dim, 0).flatten(1).double() for part in (x, y))
        sums += torch.stack([a.sum(1), b.sum(1), (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)])
        count += a.shape[1]
    mean_a, mean_b, aa, bb, ab = sums / count
    return (
        mean_a,
        mean_b,
        (aa - mean_a * mean_a).clamp_min(0),
        (bb - mean_b * mean_b).clamp_min(0),
        ab - mean_a * mean_b,
    )


def channel_mean(x: Tensor, dim: int) -> Tensor:
    """The mean of every channel, in float64. Shapes: any -> (C,)."""
    return x.movedim(dim, 0).flatten(1).mean(1, dtype=torch.float64)


def channel_dim(module: nn.Module, out: Tensor) -> int:
    """The axis of the channels in the output of a layer or norm."""
    if isinstance(module, nn.Linear):
        return -1
    if isinstance(module, nn.LayerNorm):
        # A subclass may show its normalized axis elsewhere, as timm's LayerNorm2d does.
        same = type(module).forward is nn.LayerNorm.forward
        return -1 if same or out.dim() < 4 else 1
    return 1


def take_statistics(norm: nn.Module, z: Tensor) -> None:
    """Let the running statistics of a BatchNorm be those of `z` (N, C, ...); of any other norm there are none."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
        assert norm.running_var is not None
        count = z.numel() // z.shape[1]
        if count > 1:  # one value a channel has no variance
            mean, _, var, _, _ = _moments(z, z, 1)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var * (count / (count - 1)))


def normalized(norm: nn.Module, z: Tensor) -> Tensor:
    """The norm's output without its scale and shift, by the statistics of `z`, which BatchNorm keeps from now on.

    Shapes: (N, C, ...) or (..., C) -> the same.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
        take_statistics(norm, z)
        assert norm.running_var is not None
        mean, var = (per_channel(s, z, 1) for s in (norm.running_mean, norm.running_var))
        return (z - mean) * (var + norm.eps).rsqrt()
    scale, shift = (numbers.detach().clone() for numbers in _scale_and_shift(norm))
    set_affine(norm, torch.ones_like(scale), torch.zeros_like(shift))
    try:
        made: Tensor = norm(z)
        return made
    finally:
        set_affine(norm, scale, shift)


def fit_with_shortcut(norm: nn.Module, z: Tensor, shortcut: ChannelScale, v: Tensor, wanted: Tensor) -> None:
    """Fit the norm's scale and shift and the shortcut's factor, so that their sum comes nearest to `wanted`.

    `z` is what the norm reads, `v` what the factor multiplies. A channel in which one of both is constant, or each
    follows from the other, keeps its factor. Shapes: z, v and wanted alike, (N, C, ...) or (..., C).
    """
    u = normalized(norm, z)
    dim = channel_dim(norm, u)
    _, _, uu, vv, uv = _moments(u, v, dim)
    *_, ut = _moments(u, wanted, dim)
    *_, vt = _moments(v, wanted, dim)
    determinant = uu * vv - uv.square()
    solvable = determinant > _COLLINEAR * uu * vv
    factor = (vt * uu - ut * uv) / torch.where(solvable, determinant, torch.ones_like(determinant))
    shortcut.s.data.copy_(torch.where(solvable, factor, shortcut.s.detach().to(factor.dtype)))
    _fit_normalized(norm, u, wanted - shortcut(v), "least-squares")


def has_affine(norm: nn.Module) -> bool:
    """Whether this is a norm with a scale and a shift."""
    return isinstance(norm, NORMS) and norm.weight is not None and norm.bias is not None


def keeps_statistics(norm: nn.Module) -> TypeGuard[nn.modules.batchnorm._BatchNorm]:
    """Whether this is a BatchNorm with running statistics."""
    return isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None


def set_affine(norm: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Set the scale and shift of a norm. Shapes: (C,) each."""
    for own, new in zip(_scale_and_shift(norm), (scale, shift)):
        own.data.copy_(new)


def _scale_and_shift(norm: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return norm.get_parameter("weight"), norm.get_parameter("bias")


def fit_norm(norm: nn.Module, z: Tensor, wanted: Tensor, fit: Fit) -> Tensor:
    """Fit the norm's scale and shift; returns its new output, without an activation that it may hold.

    Shapes: z and wanted the same, (N, C, ...) or (..., C).
    """
    return _fit_normalized(norm, normalized(norm, z), wanted, fit)


def _fit_normalized(norm: nn.Module, u: Tensor, wanted: Tensor, fit: Fit) -> Tensor:
    dim = channel_dim(norm, u)
    scale, shift, alive = affine(u, wanted, dim, fit)
    old = _scale_and_shift(norm)[0].detach().to(scale.dtype)
    mean = channel_mean(u, dim)
    # A channel that is constant keeps its scale; its value is put where the float channel's mean is.
    shift = torch.where(alive, shift, shift + (scale - old) * mean)
    scale = torch.where(alive, scale, old)
    set_affine(norm, scale, shift)
    return u * per_channel(scale.to(u.dtype), u, dim) + per_channel(shift.to(u.dtype), u, dim)


def fit_layer(layer: nn.Module, y: Tensor, wanted: Tensor, fit: Fit) -> bool:
    """Fit a layer without a norm through its weight and bias, as far as it has a scale; whether anything was fitted.

    The weight scales the output where its binarizer keeps a positive factor of a filter: B(s w) = s B(w).
    Shapes: y and wanted alike, (N, O, ...) or (..., O).
    """
    bias: Any = layer.bias
    out_dim = channel_dim(layer, y)
    plain = y if bias is None else y - per_channel(bias.detach(), y, out_dim)
    scale, _, alive = affine(plain, wanted, out_dim, fit)
    scales = _scales_output(layer)
    if not scales and bias is None:
        return False
    mean = channel_mean(plain, out_dim)
    if scales:
        size = scale.abs().clamp_min(_LEAST) * torch.where(scale < 0, -1.0, 1.0)
        # Without a shift of its own, the best factor goes through the origin.
        factor = torch.where(alive, size, torch.ones_like(size))
        weight: Any = layer.weight
        weight.data.mul_(factor.to(weight.dtype).reshape(-1, *[1] * (weight.dim() - 1)))
        scale = factor
    else:
        scale = torch.ones_like(scale)
    if bias is not None:
        bias.data.copy_(channel_mean(wanted, out_dim) - scale * mean)
    return True


def _scales_output(layer: nn.Module) -> bool:
    if getattr(layer, "transposed", False):
        return False
    weight = layer.weight
    if not isinstance(layer, BinaryLayer):
        return type(layer) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if layer.real_weight() is not weight or layer.scale is not None or layer.shares_weight:
        return False
    part = weight.detach()[:1]
    once, twice = layer.weight_binarizer(part), layer.weight_binarizer(2 * part)
    return torch.allclose(twice, 2 * once, rtol=1e-4, atol=0)


def fit_classifier(layer: nn.Linear, h: Tensor, wanted: Tensor, ridge: float = 1e-3) -> bool:
    """Refit a float linear layer that reads `h` to the float model's output, staying near its weights; whether it could be.

    Least squares with the penalty ridge * mean variance of h on the change of the weight. Needs more than twice as many
    rows as inputs. Shapes: h (..., C), wanted (..., O).
    """
    rows, target = h.flatten(0, -2).double(), wanted.flatten(0, -2).double()
    if len(rows) <= 2 * rows.shape[1] or layer.bias is None:
        return False
    mean_h, mean_t = rows.mean(0), target.mean(0)
    old = layer.weight.detach().double()
    centred = rows - mean_h
    rest = target - mean_t - centred @ old.t()
    gram = centred.t() @ centred / len(rows)
    gram.diagonal().add_(ridge * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny))
    change = torch.linalg.solve(gram, centred.t() @ rest / len(rows)).t()
    layer.weight.data.copy_(old + change)
    layer.bias.data.copy_(mean_t - (old + change) @ mean_h)
    return True
