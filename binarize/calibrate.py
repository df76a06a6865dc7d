"""Thresholds, levels and BatchNorm statistics of a converted model from a few batches of unlabelled images.

Two passes in execution order, so that each layer sees the binary inputs it will really have:
    1. every binary layer sets its threshold and the levels of its input from the first batch, then runs with them
    2. every BatchNorm behind a binary layer takes its running statistics anew, as the mean over all batches
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.layers import BinaryLayer
from binarize.liveness import Images, call, evaluating, looks_like_noise

__all__ = ["Calibration", "as_batches", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """What was set, from how many images."""

    images: int
    # Layers whose threshold or input levels were set.
    layers: tuple[str, ...]
    # Norms whose running statistics were taken anew.
    norms: tuple[str, ...]


def calibrate(model: nn.Module, data: Tensor | Iterable[Any], *, noise: bool = False) -> Calibration:
    """Set thresholds, input levels and BatchNorm statistics of a converted model, in place, without any training.

    `data` is a batch (N, ...) or several; a batch may be a tensor, (images, labels) with labels ignored, a tuple of
    arguments wrapped in another tuple, or a dict of keyword arguments.

    Raises: UsageError, where there is no data, or it is generated noise and `noise=True` does not ask for that: with
    noise the signs look balanced while real images leave half the channels constant.
    """
    batches = as_batches(data)
    reason = None if noise else looks_like_noise(batches)
    if reason is not None:
        raise UsageError(
            f"the calibration data is {reason}\n  give real images; calibrate(..., noise=True) uses it all the same"
        )
    if not any(isinstance(module, BinaryLayer) for module in model.modules()):
        raise UsageError("calibrate: the model has no binary layer; convert it first")
    layers: list[str] = []
    norms: list[str] = []
    with torch.no_grad(), evaluating(model):
        _set_thresholds(model, batches[0], layers)
        _reestimate_norms(model, batches, norms)
    return Calibration(sum(_count(images) for images in batches), tuple(layers), tuple(norms))


def as_batches(data: Tensor | Iterable[Any]) -> list[Images]:
    """Batches as arguments of a forward call.

    Raises: UsageError for empty data.
    """
    batches = [data] if isinstance(data, (Tensor, dict)) else list(data)
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) for item in data):
        batches = [data]
    found = [_arguments(batch) for batch in batches]
    if not found or any(_count(images) == 0 for images in found):
        raise UsageError("there is no calibration data: expected a batch of images, or several")
    return found


def _arguments(batch: Any) -> Images:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, dict):
        return (), batch
    if isinstance(batch, (list, tuple)) and batch:
        first, *rest = batch
        if isinstance(first, (list, tuple)):
            return tuple(first), {}
        # (images, labels): labels are integers, and no model takes them.
        if (
            rest
            and isinstance(rest[0], Tensor)
            and not rest[0].is_floating_point()
            and first.is_floating_point()
        ):
            return (first,), {}
        return tuple(batch), {}
    raise UsageError(f"a calibration batch is a {type(batch).__name__}; expected a tensor, a tuple or a dict")


def _count(images: Images) -> int:
    args, kwargs = images
    tensors = [value for value in pytree.tree_leaves((args, dict(kwargs))) if isinstance(value, Tensor)]
    return int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 0


def _set_thresholds(model: nn.Module, images: Images, done: list[str]) -> None:
    """One pass in which every layer is set just before it runs, with norms on the batch's own statistics."""

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(layer, BinaryLayer)
            x = args[0]
            if name in done:
                return  # called again with other values: the first call decides
            if layer.threshold is not None:
                _set(layer.threshold, x, name, done)
                x = layer.threshold(x)
            if layer.input_binarizer is not None:
                _set(layer.input_binarizer, x, name, done)

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer)
    ]
    kept = {
        name: {key: value.clone() for key, value in norm.named_buffers(recurse=False)}
        for name, norm in _batch_norms(model)
    }
    try:
        with _BehindBinary(model):
            call(model, images)
    finally:
        for handle in handles:
            handle.remove()
        for name, norm in _batch_norms(model):
            for key, value in kept[name].items():
                norm.get_buffer(key).copy_(value)


def _set(part: Any, x: Tensor, name: str, done: list[str]) -> None:
    if hasattr(part, "calibrate"):
        part.calibrate(x)
        if name not in done:
            done.append(name)


def _reestimate_norms(model: nn.Module, batches: Sequence[Images], done: list[str]) -> None:
    norms = dict(_batch_norms(model))
    momenta = {name: norm.momentum for name, norm in norms.items()}
    try:
        with _BehindBinary(model) as behind:
            for position, images in enumerate(batches):
                for norm in norms.values():
                    # The plain mean over the batches: weight 1/1, 1/2, 1/3, ...
                    norm.momentum = 1.0 / (position + 1)
                behind.started = False  # in this batch the stem comes first again
                call(model, images)
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
    done.extend(name for name, norm in norms.items() if norm in behind.reached)


def _batch_norms(model: nn.Module) -> list[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]


class _BehindBinary:
    """Puts every BatchNorm that runs after a binary layer into training mode; the float stem keeps its statistics."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.started = False
        self.reached: set[nn.Module] = set()
        self.handles: list[Any] = []

    def __enter__(self) -> _BehindBinary:
        def start(layer: nn.Module, args: tuple[Any, ...]) -> None:
            self.started = True

        def norm(layer: nn.Module, args: tuple[Any, ...]) -> None:
            # One value a channel has no variance.
            several = args[0].numel() > args[0].shape[1]
            layer.training = self.started and several
            if layer.training:
                self.reached.add(layer)

        for _, module in self.model.named_modules():
            if isinstance(module, BinaryLayer):
                self.handles.append(module.register_forward_pre_hook(start))
        for _, module in _batch_norms(self.model):
            self.handles.append(module.register_forward_pre_hook(norm))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()
        for _, module in _batch_norms(self.model):
            module.training = False
