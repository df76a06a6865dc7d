"""How many binary weights change from one look to the next: near 0 the training has settled, at once high it is unstable."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from binarize.layers.layer import BinaryLayer

__all__ = ["Flips", "binary_signs"]

# Elements of a weight that are looked at at a time.
_SLICE = 1 << 22


@torch.no_grad()
def binary_signs(layer: BinaryLayer) -> Tensor:
    """Which of its two values each weight has now, eight a byte, as uint8; the last byte is filled up with zeros.

    True is the upper value of the filter. Shape: (ceil(weights / 8),).
    """
    weight = layer.real_weight()
    rows = max(1, _SLICE // max(1, weight[0].numel()))
    parts = [_upper(layer, part) for part in (weight.split(rows) if _by_rows(layer) else [weight])]
    bits = torch.cat([part.flatten() for part in parts])
    bits = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).view(-1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return (bits.to(torch.uint8) * weights).sum(1, dtype=torch.uint8)


def _by_rows(layer: BinaryLayer) -> bool:
    binarizer = layer.weight_binarizer
    return bool(getattr(binarizer, "per_filter", False)) and getattr(binarizer, "axis", 0) == 0


def _upper(layer: BinaryLayer, weight: Tensor) -> Tensor:
    values, _ = layer.binarized_weight(weight)
    filters = values.transpose(0, getattr(layer.weight_binarizer, "axis", 0)).flatten(1)
    middle = (filters.amin(1, keepdim=True) + filters.amax(1, keepdim=True)) / 2
    # All weights of a filter may have one value; where the values are signs its own sign tells which.
    return torch.where(filters.abs() == 1, filters > 0, filters >= middle)


class Flips:
    """Counts the binary weights of each layer that changed since the last count.

    Example:
        >>> flips = Flips(model)                    # doctest: +SKIP
        >>> flips.count()["features.3"]             # doctest: +SKIP
        0.0031
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, BinaryLayer) and not isinstance(module.weight_binarizer, nn.Identity)
        }
        self._signs = self._now()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose weights are binary now."""
        return tuple(self._layers)

    def _now(self) -> dict[str, Tensor]:
        # Weights drawn at random in training have their sign in evaluation.
        modes = {name: layer.weight_binarizer.training for name, layer in self._layers.items()}
        try:
            for layer in self._layers.values():
                layer.weight_binarizer.eval()
            return {name: binary_signs(layer).cpu() for name, layer in self._layers.items()}
        finally:
            for name, layer in self._layers.items():
                layer.weight_binarizer.train(modes[name])

    def count(self) -> dict[str, float]:
        """Per layer the share of weights that changed since the last count (or since this was made)."""
        before, self._signs = self._signs, self._now()
        return {
            name: _ones(self._signs[name] ^ before[name]) / layer.weight.numel()
            for name, layer in self._layers.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The signs at the last count, one bit a weight."""
        return dict(self._signs)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Count from these signs on."""
        self._signs = {name: state[name] for name in self._layers}


def _ones(packed: Tensor) -> int:
    """Bits that are set."""
    table = torch.tensor([bin(byte).count("1") for byte in range(256)])
    return int(table[packed.long()].sum())
