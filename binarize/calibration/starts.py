"""Thresholds, levels and statistics alone: what conversion does with the example images, without the float model.

Two passes in execution order, so that each layer sees the binary inputs it will really have:
    1. every binary layer sets its threshold and the levels of its input from the first batch, then runs with them
    2. every BatchNorm behind a binary layer takes its running statistics anew, as the mean over all batches
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from binarize.calibration.result import Calibration
from binarize.calibration.statistics import reestimate
from binarize.calibration.thresholds import set_inputs
from binarize.errors import UsageError, way
from binarize.inputs.arguments import Images
from binarize.inputs.batches import count
from binarize.inputs.noise import looks_like_noise
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating

__all__ = ["check_calibration", "set_starts"]


def set_starts(model: nn.Module, batches: Sequence[Images], *, noise: bool = False) -> Calibration:
    """Set thresholds, input levels and BatchNorm statistics of a converted model, in place.

    Raises: UsageError for generated noise.
    """
    check_calibration(model, batches, noise=noise)
    with torch.no_grad(), evaluating(model):
        layers = set_inputs(model, batches[0])
        norms = reestimate(model, batches)
    return Calibration(sum(count(images) for images in batches), layers, norms)


def check_calibration(model: nn.Module, batches: Sequence[Images], *, noise: bool = False) -> None:
    """Refuse a model that is not converted, images with NaN, and ones that are noise unless `noise` asks for them.

    With noise the signs look balanced while real images leave half the channels constant.
    """
    reason = None if noise else looks_like_noise(batches)
    if reason is not None:
        raise UsageError(
            f"the calibration data is {reason}\n"
            f"  give real images{way('', '; calibrate(..., noise=True) uses it all the same')}"
        )
    done = 0
    for images in batches:
        for leaf in tree_leaves(images):
            if isinstance(leaf, Tensor) and not bool(torch.isfinite(leaf).all()):
                first = int((~torch.isfinite(leaf)).reshape(len(leaf), -1).any(1).nonzero()[0])
                raise UsageError(
                    f"image {done + first + 1} of the calibration data holds numbers that are not finite; leave it out"
                )
        done += count(images)
    if not any(isinstance(module, BinaryLayer) for module in model.modules()):
        raise UsageError("calibrate: the model has no binary layer; convert it first")
