"""BatchNorm for layers that none follows, and what the float model's norms tell about the values behind them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.layers import BinaryLayer

__all__ = ["mean_behind", "new_norm", "start_variance"]

_NORMS = {
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
    "LayerNorm": nn.LayerNorm,
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda z: z,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "leakyrelu": F.leaky_relu,
}
# Points of a standard normal distribution, equally probable: enough for a mean that calibration will refine.
_QUANTILES = 64
# Weights of a filter that its second moment is estimated from.
_ENOUGH = 4096


def new_norm(name: str, channels: int) -> nn.Module:
    """A fresh norm of that class over `channels`."""
    return _NORMS[name](channels)


def start_variance(layer: BinaryLayer, norm: nn.Module) -> None:
    """Start the running variance where independent ±1 inputs put it: the sum of each filter's squared weights.

    Until a batch has been seen, evaluation mode then yields values of about unit size instead of the fan-in's.
    """
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
        return
    with torch.no_grad():
        weight = layer.real_weight()
        if getattr(layer, "transposed", False):
            squares = layer.weight_binarizer(weight).float().square().sum([0, *range(2, weight.dim())])
            squares = squares.repeat(norm.num_features // squares.numel())
        else:
            # A part of each filter tells enough for a start, and a fully connected layer has very many.
            part = weight.flatten(1)[:, :_ENOUGH]
            squares = layer.weight_binarizer(part).float().square().mean(1) * weight[0].numel()
        norm.running_var.copy_(squares.clamp_min(norm.eps))


def mean_behind(norm: nn.Module, activation: str, window: int = 1) -> Tensor | None:
    """Mean per channel of the largest of `window` values activation(z), z normal with the norm's shift and scale.

    A normalized channel has mean 0 and variance 1 before its affine map, so z ~ N(bias, weight^2). None where the
    norm has no such numbers or the activation is unknown; "" is none.
    """
    bias, weight = getattr(norm, "bias", None), getattr(norm, "weight", None)
    function = _FUNCTIONS.get(activation)
    if not isinstance(bias, Tensor) or not isinstance(weight, Tensor) or function is None or bias.dim() != 1:
        return None
    with torch.no_grad():
        # The quantiles are made where the norm lives, so that a module without data stays one.
        grid = (torch.arange(_QUANTILES, device=bias.device, dtype=torch.float32) + 0.5) / _QUANTILES
        # The largest of n values lies below the quantile u with probability u^n.
        normal = torch.erfinv(2 * grid ** (1 / window) - 1) * 2**0.5
        values = function(bias.float()[:, None] + weight.float()[:, None].abs() * normal)
        return values.mean(1).to(bias.dtype)
