"""A network of random signs becomes the binary network of their likelier values, for good."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from binarize.bernoulli.layers import BernoulliLayer, is_soft
from binarize.errors import UsageError

__all__ = ["confident_share", "harden", "soft_layers"]


def soft_layers(model: nn.Module) -> list[BernoulliLayer]:
    """The layers of random signs that are not hardened yet, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, BernoulliLayer) and is_soft(layer)]


@torch.no_grad()
def harden(model: nn.Module) -> nn.Module:
    """Give every random weight its likelier value and every random activation its sign. In place.

    Raises: UsageError, where nothing in the model is random.

    Example:
        >>> bnn = binarize.harden(bnn)                                     # doctest: +SKIP
    """
    layers = soft_layers(model)
    if not layers:
        raise UsageError(
            "harden: no layer of the model has random signs; expected one of scheme naive-bernoulli"
        )
    for layer in layers:
        layer.harden()
    for module in model.modules():
        if isinstance(module._buffers.get("soft"), Tensor):
            module.get_buffer("soft").fill_(False)
    return model


@torch.no_grad()
def confident_share(model: nn.Module, doubt: float = 0.05) -> float:
    """Share of random weights whose less likely value is less likely than `doubt`; 1 where none is random."""
    sure = total = 0
    for layer in soft_layers(model):
        mean = layer.binarized_weight()[0].abs()
        sure += int((mean > 1 - 2 * doubt).sum())
        total += mean.numel()
    return sure / total if total else 1.0
