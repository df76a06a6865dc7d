"""How far a frozen model is from the trained one: last digits differ, and near a threshold they turn signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from binarize.packed.frozen.layer import FrozenLayer

__all__ = ["Drift", "measure_drift"]


@dataclass(frozen=True)
class Drift:
    """What running both models on the same inputs showed."""

    inputs: int
    # Signs that the binary layers read, and how many of them differ.
    signs: int
    turned: int
    # Share of inputs with the same largest output; None where the output is no table of class scores.
    same_top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return asdict(self)


@torch.no_grad()
def measure_drift(
    trained: nn.Module, frozen: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Drift:
    """Run both models in evaluation mode on one batch and compare classes and signs.

    `frozen` (or packed) was made from `trained`; both are left in the modes that they have.
    """
    layers = {name: layer for name, layer in frozen.named_modules() if isinstance(layer, FrozenLayer)}
    binary = {name: layer for name, layer in layers.items() if not layer.float_input}
    keywords = dict(kwargs or {})
    before = _watched(trained, binary, args, keywords)
    after = _watched(frozen, binary, args, keywords)
    pairs = list(zip(before[1], after[1], strict=True))
    table = isinstance(before[0], Tensor) and before[0].dim() == 2 and before[0].shape[1] > 1
    same = (before[0].argmax(1) == after[0].argmax(1)).double().mean().item() if table else None
    return Drift(
        inputs=next((len(a) for a in (*args, *keywords.values()) if isinstance(a, Tensor)), 0),
        signs=sum(a.numel() for a, _ in pairs),
        turned=sum(int((a != b).sum()) for a, b in pairs),
        same_top1=same,
    )


def _watched(
    model: nn.Module, layers: Mapping[str, FrozenLayer], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, list[Tensor]]:
    """(the model's output, the signs that the frozen layers make of what the layers at their paths read)."""
    seen: list[Tensor] = []

    def hook_of(layer: FrozenLayer) -> Any:
        def hook(_: nn.Module, read: tuple[Any, ...]) -> None:
            x = read[0] if layer.front is None else layer.front(read[0])
            seen.extend(plane > 0 for plane in layer.planes_of(x))

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(hook_of(layer)) for name, layer in layers.items()
    ]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return model(*args, **kwargs), seen
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
