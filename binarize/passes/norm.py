"""BatchNorm for layers that none follows."""

from __future__ import annotations

import torch
from torch import nn

from binarize.layers.layer import BinaryLayer

__all__ = ["NORMS", "new_norm", "start_variance"]

NORMS = {
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm2d": nn.BatchNorm2d,
    "BatchNorm3d": nn.BatchNorm3d,
    "LayerNorm": nn.LayerNorm,
}
# Weights of a filter that its second moment is estimated from.
_ENOUGH = 4096


def new_norm(name: str, channels: int) -> nn.Module:
    """A fresh norm of that class over `channels`."""
    return NORMS[name](channels)


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
