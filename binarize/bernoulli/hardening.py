"""A network of random signs becomes the binary network of their likelier values, for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from binarize.bernoulli.classes import is_soft
from binarize.bernoulli.layers import BernoulliLayer
from binarize.bernoulli.probability import nearest_cut
from binarize.errors import UsageError
from binarize.modules.modes import evaluating

__all__ = [
    "Hardened",
    "confident_share",
    "harden",
    "harden_trained",
    "is_hardened",
    "recentre",
    "soft_layers",
]


def soft_layers(model: nn.Module) -> list[BernoulliLayer]:
    """The layers of random signs that are not hardened yet, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, BernoulliLayer) and is_soft(layer)]


def is_hardened(model: nn.Module) -> bool:
    """Whether all random signs of a model that had some are hardened."""
    return any(isinstance(layer, BernoulliLayer) for layer in model.modules()) and not soft_layers(model)


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


@dataclass(frozen=True)
class Hardened:
    """What a network of random signs was and became, on held-out images; None where there were none."""

    # Share of weights that were certain but for one in twenty.
    confident: float
    soft_top1: float | None
    hard_top1: float | None
    # Whether new centres were kept, and what they made of the top-1.
    recentred: bool = False
    recentred_top1: float | None = None

    @property
    def words(self) -> str:
        """One clause for a report."""
        text = f"hardened, {self.confident:.1%} of the weights confident"
        if self.soft_top1 is None or self.hard_top1 is None:
            return text
        text += f", top-1 {self.soft_top1:.2%} soft and {self.hard_top1:.2%} hard"
        if self.recentred_top1 is None:
            return text
        return (
            f"{text}, {self.recentred_top1:.2%} with new centres ({'kept' if self.recentred else 'not kept'})"
        )


Batches = Callable[[], Iterable[Any]]


@torch.no_grad()
def harden_trained(model: nn.Module, training: Batches, held: Batches | None) -> Hardened:
    """Harden a trained network; centres of hard sums are taken from training images and kept where held-out ones gain."""
    confident = confident_share(model)
    offsets = {layer: layer.offset() for layer in soft_layers(model) if layer.centres}
    soft = None if held is None else _top1(model, held())
    harden(model)
    if held is None:
        return Hardened(confident, None, None)
    hard = _top1(model, held())
    before = {layer: layer.get_parameter("bias").detach().clone() for layer in offsets}
    for layer, offset in offsets.items():
        recentre(model, layer, offset, training())
    again = _top1(model, held()) if offsets else None
    better = again is not None and hard is not None and again > hard
    if not better:
        for layer, bias in before.items():
            layer.get_parameter("bias").copy_(bias)
    return Hardened(confident, soft, hard, better, again)


@torch.no_grad()
def recentre(model: nn.Module, layer: BernoulliLayer, offset: Tensor, batches: Iterable[Any]) -> None:
    """Put the threshold of a hardened layer at the mean of its sums over the batches, plus the offset it has learned."""
    bias = layer.get_parameter("bias")
    total, count = torch.zeros_like(bias, dtype=torch.float64), 0

    def watch(_: nn.Module, __: object, y: Tensor) -> None:
        nonlocal count
        rows = y.detach().movedim(layer.channel_axis, 0).flatten(1).double()
        total.add_(rows.sum(1))
        count += rows.shape[1]

    activation, layer.activation = layer.activation, None
    handle = layer.register_forward_hook(watch)
    try:
        for batch in batches:
            if batch.images is not None:
                _run(model, batch.images)
    finally:
        handle.remove()
        layer.activation = activation
    if count:
        bias.copy_(-nearest_cut(total / count - bias.double() + offset.double(), layer.fan_in))


def _run(model: nn.Module, images: Any) -> Tensor:
    device = next(model.parameters()).device
    with evaluating(model):
        output: Tensor = model(images.to(device))
        return output


def _top1(model: nn.Module, batches: Iterable[Any]) -> float | None:
    right = seen = 0
    for batch in batches:
        if batch.images is None or batch.labels is None or batch.labels.dim() != 1:
            continue
        output = _run(model, batch.images)
        if not isinstance(output, Tensor) or output.dim() != 2:
            return None
        right += int((output.argmax(1).cpu() == batch.labels.cpu()).sum())
        seen += len(batch.labels)
    return right / seen if seen else None
