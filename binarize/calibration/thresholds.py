"""Thresholds and levels of binary inputs, set from what each layer reads just before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from binarize.bernoulli.classes import is_soft
from binarize.calibration.norms import BehindBinary, batch_norms, reestimate
from binarize.calibration.result import Calibration
from binarize.errors import UsageError, way
from binarize.inputs.arguments import Images, call
from binarize.inputs.batches import count
from binarize.inputs.noise import looks_like_noise
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating

__all__ = ["check_calibration", "set_input", "set_inputs", "set_starts", "split_point"]


# Values of a channel that its split is looked for in.
_ENOUGH = 1 << 16


def set_inputs(model: nn.Module, images: Images) -> tuple[str, ...]:
    """One pass in which every layer is set just before it runs, with norms on the batch's own statistics.

    Returns the names of the layers that have something to set.
    """
    done: dict[str, bool] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(layer, BinaryLayer)
            # Called again with other values: the first call decides.
            if name not in done:
                done[name] = set_input(layer, args[0])

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer)
    ]
    norms = dict(batch_norms(model))
    kept = {
        name: {key: value.clone() for key, value in norm.named_buffers(recurse=False)}
        for name, norm in norms.items()
    }
    try:
        with BehindBinary(model, norms.values()):
            call(model, images)
    finally:
        for handle in handles:
            handle.remove()
        for name, norm in norms.items():
            for key, value in kept[name].items():
                norm.get_buffer(key).copy_(value)
    return tuple(name for name, changed in done.items() if changed)


def set_input(layer: BinaryLayer, x: Tensor, split: float = 0.0) -> bool:
    """Set the threshold and the levels of a layer that reads `x`; whether there was anything to set.

    A threshold is put at the mean, moved by the share `split` of the way to `split_point`.

    Shapes: x (N, C, ...) or (..., C).
    """
    found = False
    for part in (layer.threshold, layer.input_binarizer):
        move = getattr(part, "calibrate", None)
        if move is not None:
            move(x)
            found = True
            _move_to_split(part, x, split)
        if part is layer.threshold and part is not None:
            x = part(x)
    centre = getattr(layer, "calibrate_centre", None)
    if centre is not None and is_soft(layer):
        centre(x)
        found = True
    return found


def split_point(rows: Tensor) -> Tensor:
    """Where each row of values is best cut in two: both parts stand for their means with the least squared error.

    Shapes: (C, N) -> (C,). The threshold of Otsu, 1979, https://doi.org/10.1109/TSMC.1979.4310076, which is Lloyd's
    quantizer of two levels. The mean of a row that is constant.
    """
    values, _ = rows.double().sort(1)
    count = values.shape[1]
    if count < 2:
        return values.mean(1)
    sums = values.cumsum(1)
    below = torch.arange(1, count, device=rows.device, dtype=values.dtype)
    low = sums[:, :-1] / below
    high = (sums[:, -1:] - sums[:, :-1]) / (count - below)
    between = below * (count - below) * (high - low).square()
    # Equal values lie on the same side.
    between = torch.where(values[:, 1:] > values[:, :-1], between, -1.0)
    at = between.argmax(1, keepdim=True)
    found = (values.gather(1, at) + values.gather(1, at + 1)).squeeze(1) / 2
    return torch.where(between.amax(1) > 0, found, values.mean(1))


def _move_to_split(part: Any, x: Tensor, split: float) -> None:
    centre = getattr(part, "tau", None)
    if isinstance(centre, Tensor) and centre.dim() == 1:
        rows = x.movedim(part.channel_dim, 0).flatten(1)
    elif isinstance(centre := getattr(part, "beta", None), Tensor) and centre.numel() == 1:
        rows = x.reshape(1, -1)
    else:
        return
    if split and len(rows) == centre.numel():
        step = max(1, -(-rows.shape[1] // _ENOUGH))
        point = split_point(rows[:, ::step]).to(centre.dtype)
        centre.data.lerp_(point.reshape(centre.shape), split)


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
