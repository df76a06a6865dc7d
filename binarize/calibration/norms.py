"""Running statistics of BatchNorm behind binary layers, anew from images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from binarize.calibration.closed_form import has_affine, set_affine, take_statistics
from binarize.inputs.arguments import Images, call
from binarize.layers.layer import BinaryLayer

__all__ = ["BehindBinary", "batch_norms", "reestimate", "renew_statistics"]


def reestimate(model: nn.Module, batches: Sequence[Images], leave: Collection[str] = ()) -> tuple[str, ...]:
    """Set the running statistics of the norms behind binary layers to the mean over all batches.

    Returns their names. Norms in `leave` keep theirs.
    """
    norms = {name: norm for name, norm in batch_norms(model) if name not in leave}
    momenta = {name: norm.momentum for name, norm in norms.items()}
    try:
        with BehindBinary(model, norms.values()) as behind:
            for position, images in enumerate(batches):
                for norm in norms.values():
                    # The plain mean over the batches: weight 1/1, 1/2, 1/3, ...
                    norm.momentum = 1.0 / (position + 1)
                behind.started = False  # in this batch the stem comes first again
                call(model, images)
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
    return tuple(name for name, norm in norms.items() if norm in behind.reached)


def batch_norms(model: nn.Module) -> list[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    """Every BatchNorm that keeps running statistics, with its path."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]


def renew_statistics(bn: nn.modules.batchnorm._BatchNorm, z: Tensor) -> None:
    """Take the statistics of what a BatchNorm reads now, changing scale and shift so that its output stays the same.

    Shapes: z (N, C, ...).
    """
    assert bn.running_mean is not None and bn.running_var is not None
    mean, deviation = bn.running_mean.clone(), (bn.running_var + bn.eps).sqrt()
    take_statistics(bn, z)
    if not has_affine(bn):
        return
    scale = bn.weight.detach() * (bn.running_var + bn.eps).sqrt() / deviation
    shift = bn.bias.detach() + bn.weight.detach() * (bn.running_mean - mean) / deviation
    set_affine(bn, scale, shift)


class BehindBinary:
    """Puts every given BatchNorm that runs after a binary layer into training mode; the float stem keeps its statistics."""

    def __init__(self, model: nn.Module, norms: Collection[nn.Module]) -> None:
        self.model = model
        self.norms = tuple(norms)
        self.started = False
        self.reached: set[nn.Module] = set()
        self.handles: list[Any] = []

    def __enter__(self) -> BehindBinary:
        def start(layer: nn.Module, args: tuple[Any, ...]) -> None:
            self.started = True

        def norm(layer: nn.Module, args: tuple[Any, ...]) -> None:
            # One value a channel has no variance.
            several = args[0].numel() > args[0].shape[1]
            layer.training = self.started and several
            if layer.training:
                self.reached.add(layer)

        for module in self.model.modules():
            if isinstance(module, BinaryLayer):
                self.handles.append(module.register_forward_pre_hook(start))
        for module in self.norms:
            self.handles.append(module.register_forward_pre_hook(norm))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()
        for module in self.norms:
            module.training = False
