"""Whether a converted network still depends on its input: the signs that its binary layers read of given images.

A layer whose input has one sign everywhere computes a constant, and so does the whole network behind it. That is what
becomes of a network whose layers are binarized without a word about the ReLU in front of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from binarize.inputs.arguments import Images, call
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating
from binarize.report.live import LiveShare

__all__ = ["measure_liveness", "upper_values"]


@torch.no_grad()
def measure_liveness(model: nn.Module, batches: Sequence[Images]) -> dict[str, LiveShare]:
    """Per binary layer with binary inputs: the share of upper values, and of input channels that have one sign only.

    Channels are counted over all batches and positions. The model runs in evaluation mode.
    """
    upper: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(layer, BinaryLayer)
            bits = upper_values(layer, args[0])
            dim = getattr(layer, "in_features", None) is not None and bits.dim() > 2
            channels = bits.movedim(-1 if dim else min(1, bits.dim() - 1), 0).flatten(1)
            upper[name] = upper.get(name, 0) + channels.sum(1).double()
            count[name] = count.get(name, 0) + channels.shape[1]

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer) and layer.input_binarizer is not None
    ]
    try:
        with evaluating(model):
            for images in batches:
                call(model, images)
    finally:
        for handle in handles:
            handle.remove()
    shares = {}
    for name, ones in upper.items():
        constant = ((ones == 0) | (ones == count[name])).double().mean().item()
        shares[name] = LiveShare(ones.sum().item() / (count[name] * len(ones)), constant)
    return shares


def upper_values(layer: BinaryLayer, x: Tensor) -> Tensor:
    """Where the layer's binary input takes the upper of its two values (+1), as booleans in the shape of `x`."""
    # What the binarizer makes of very small and very large inputs are its two values, whatever the method.
    low, high = (layer.binarized_input(torch.full_like(x[:1], end)) for end in (-1e4, 1e4))
    values = layer.binarized_input(x)
    return (values - low).abs_() > (values - high).abs_()
