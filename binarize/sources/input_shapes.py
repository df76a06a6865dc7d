"""The shape of a model's input when nobody gave it: known, or inferred from the first layer and tried."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from binarize.sources.structure import without_data

__all__ = ["example_input", "infer"]

# Sides tried in this order: ImageNet first, then what flattened heads of smaller data sets accept.
SIDES = (224, 299, 256, 128, 112, 96, 64, 48, 40, 32, 28, 16, 8)
LENGTHS = (16000, 1024, 256, 128)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def infer(module: nn.Module) -> tuple[int, ...] | None:
    """The first shape that the forward accepts, from what the first layer takes in; else None."""
    try:
        skeleton = without_data(module).eval()
    except Exception:  # the user's own __deepcopy__ or __setstate__ may raise anything
        return None
    for part in skeleton.modules():
        for table in HOOKS:  # the user's hooks must not see this trial
            getattr(part, table).clear()
    for shape in _candidates(module):
        if _accepts(skeleton, shape):
            return shape
    return None


def example_input(
    shape: tuple[int, ...], module: nn.Module, *, inputs: int = 1, seed: int = 0
) -> tuple[Tensor, ...]:
    """Seeded normal noise in the module's dtype on its device: good for shapes, useless for calibration."""
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    if first.device.type == "meta":
        return tuple(torch.empty(shape, dtype=first.dtype, device="meta") for _ in range(inputs))
    generator = torch.Generator().manual_seed(seed)
    noise = (torch.randn(shape, generator=generator) for _ in range(inputs))
    return tuple(x.to(device=first.device, dtype=first.dtype) for x in noise)


def _candidates(module: nn.Module) -> Iterator[tuple[int, ...]]:
    for layer in module.modules():
        # Read from its attributes: a layer from a damaged file may lack them.
        channels, features = vars(layer).get("in_channels"), vars(layer).get("in_features")
        if isinstance(layer, nn.Conv2d) and isinstance(channels, int):
            yield from ((1, channels, side, side) for side in SIDES)
        elif isinstance(layer, nn.Conv3d) and isinstance(channels, int):
            yield from ((1, channels, 16, side, side) for side in (112, 64, 32))
        elif isinstance(layer, nn.Conv1d) and isinstance(channels, int):
            yield from ((1, channels, length) for length in LENGTHS)
        elif isinstance(layer, nn.Linear) and isinstance(features, int):
            yield (1, features)
        else:
            continue
        return


def _accepts(skeleton: nn.Module, shape: tuple[int, ...]) -> bool:
    first = next((p for p in skeleton.parameters() if p.is_floating_point()), torch.empty(0))
    try:
        with torch.no_grad(), torch.device("meta"):
            skeleton(torch.empty(shape, dtype=first.dtype, device="meta"))
    except Exception:  # the user's own forward may raise anything
        return False
    return True
