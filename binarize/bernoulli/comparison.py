"""A network of random signs beside the binary networks that it stands for: how alike they are, and some of them drawn."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from binarize.bernoulli.hardening import harden, soft_layers
from binarize.bernoulli.layers import BernoulliLayer
from binarize.errors import UsageError
from binarize.modules.modes import evaluating

__all__ = ["Ensemble", "drawn", "layer_correlations"]


@torch.no_grad()
def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """A binary network whose weights are drawn with the probabilities of a network of random signs.

    Raises: UsageError, where nothing in the model is random.
    """
    made = copy.deepcopy(model)
    layers = soft_layers(made)
    if not layers:
        raise UsageError(
            "no layer of the model has random signs to draw; expected one of scheme naive-bernoulli"
        )
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        mean = layer.binarized_weight()[0].double().cpu()
        signs = torch.where(
            torch.rand(mean.shape, generator=generator, dtype=torch.float64) < (1 + mean) / 2, 1, -1
        )
        layer.weight.copy_(signs)
    return harden(made)


class Ensemble(nn.Module):
    """The mean of what binary networks yield that were drawn from one of random signs. Shapes: as of the network."""

    def __init__(self, model: nn.Module, count: int, seed: int = 0) -> None:
        super().__init__()
        if count < 1:
            raise UsageError(f"an ensemble of {count} networks; expected at least 1")
        self.members = nn.ModuleList(drawn(model, seed + k) for k in range(count))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.stack([member(x) for member in self.members])
        return total.mean(0)


@torch.no_grad()
def layer_correlations(model: nn.Module, hard: nn.Module, images: Tensor) -> dict[str, float]:
    """Pearson's correlation of what each random layer yields with what it yields in the hardened network.

    Means are compared with signs, and the last sums with sums.
    """
    names = [name for name, layer in model.named_modules() if isinstance(layer, BernoulliLayer)]
    with evaluating(model), evaluating(hard), _watched(model, names) as soft, _watched(hard, names) as signs:
        model(images)
        hard(images)
    found = {}
    for name in names:
        layer = cast(BernoulliLayer, model.get_submodule(name))
        one, other = soft[name], signs[name]
        if layer.probabilities.reads == "sign":
            other = torch.where(other < 0, -1.0, 1.0)
        found[name] = float(
            torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1]
        )
    return found


@contextmanager
def _watched(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: object, y: Tensor) -> None:
            found[name] = y

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
