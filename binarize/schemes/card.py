"""What each part of a scheme says of itself, and what it does to single numbers: for people who choose between schemes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from binarize.schemes.part import Part
from binarize.schemes.scheme import PART_SLOTS, Scheme

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NUMBERS", "Card", "cards", "settings"]

# Where a part is looked at: from -LIMIT to LIMIT, 0 in the middle.
NUMBERS, LIMIT = 49, 2.0


@dataclass(frozen=True)
class Card:
    """One part of a scheme."""

    # "weight", "input", "scale" or "nonlinearity".
    slot: str
    part: Part
    # The formula, the gradient, how it starts and the source, as its class says them.
    text: str
    # Its outputs for NUMBERS numbers in a row, and the derivative that the backward pass has for each; none of a scale.
    values: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()


def cards(scheme: Scheme) -> list[Card]:
    """A card of each part that a scheme has.

    Example:
        >>> cards(load_rule_set("bnn").schemes["bnn"])[0].part.name
        'bnn.SteSign'
    """
    return list(_cards(scheme))


def _cards(scheme: Scheme) -> Iterator[Card]:
    import torch

    for slot in PART_SLOTS:
        part = getattr(scheme, slot)
        if part is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = part.build(channels=1, channel_dim=1, axis=0).eval()
        text = inspect.cleandoc(type(module).__doc__ or "")
        if type(module).__module__.startswith("torch."):  # whose own text is written for web pages
            text = text.partition("\n\n")[0]
        if slot == "scale":
            yield Card(slot, part, text)
        else:
            yield Card(slot, part, text, *_curves(module, slot == "weight"))


def _curves(module: nn.Module, is_weight: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(outputs, own derivatives). The numbers are one filter of a weight, or one number of one channel each."""
    import torch
    from torch import Tensor

    middle = NUMBERS // 2
    x = torch.arange(-middle, middle + 1, dtype=torch.float64) * (LIMIT / middle)
    module = module.double()

    def run(row: Tensor) -> Tensor:
        y: Tensor = module(row[None] if is_weight else row[:, None])
        return y.reshape(-1)

    y = run(x.requires_grad_())
    slopes = [float(torch.autograd.grad(one, x, retain_graph=True)[0][i]) for i, one in enumerate(y)]
    return tuple(y.tolist()), tuple(slopes)


def settings(scheme: Scheme) -> dict[str, str]:
    """Every key of a scheme in words, those that say nothing left out."""
    data: dict[str, Any] = scheme.to_json()
    return {key: text for key, value in data.items() if (text := _words(value)) not in ("", "none")}


def _words(value: object) -> str:
    if isinstance(value, dict):
        name = value.get("part", "")
        rest = ", ".join(f"{key} {_words(item)}" for key, item in value.items() if key != "part")
        return f"{name} ({rest})" if name and rest else str(name or rest)
    if isinstance(value, (list, tuple)):
        return ("; " if any(isinstance(item, dict) for item in value) else " ").join(map(_words, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
