"""Freezing: a network becomes binary a share at a time, entry by entry, layer by layer, or all at once at the end.

A mask over weights and one over channels of inputs say what is frozen: that is binary, the rest is still soft: a weight
is itself, an input the clamp between its two values; in a network of random signs both are means. What is soft learns to
live with what is frozen. Shares grow at the beginnings of epochs, evenly over a stage.

    full         nothing while the stage lasts; networks of random signs are hardened when it is over
    layerwise    one layer at a time
    progressive  a share of each layer's entries at a time, of all layers at once or of one after the other

Source: progressive freezing from the input to the output with random masks is StoMPP, 2026, https://arxiv.org/abs/2601.22660
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from binarize.errors import RuleError, did_you_mean

__all__ = ["FREEZING_KEYS", "Freezing", "freezing_of"]

Kind = Literal["full", "layerwise", "progressive"]
Order = Literal["all", "forward", "backward", "last_first"]


@dataclass(frozen=True)
class Freezing:
    """How a stage freezes."""

    freeze: Kind
    # Which layers: all at once; from the input; from the output; or the last one, then from the input.
    order: Order = "all"
    # Of a layer's entries, at a time.
    share: float = 0.05
    # "confidence": largest magnitudes first.
    select: Literal["random", "confidence"] = "confidence"
    # Of what is frozen, as much thaws at each step while as much else freezes.
    refresh: float = 0.0
    # "ste": what is frozen is still trained, by its straight-through gradient.
    frozen_gradient: Literal["none", "ste"] = "none"
    # "hard": activations are signs in the forward pass from the first step, with soft gradients; "soft": frozen with weights.
    activations: Literal["hard", "soft"] = "hard"

    def steps(self, layers: int) -> int:
        """How often more is frozen."""
        if self.freeze == "full":
            return 0
        return math.ceil(1 / self.share - 1e-9) * (1 if self.order == "all" else layers)

    def shares(self, step: int, layers: int) -> list[float]:
        """What is frozen of each layer, in the model's order, once that step is taken; steps count from 1."""
        if self.order == "all":
            return [min(1.0, step * self.share)] * layers
        each = self.steps(1)
        places = {
            "forward": list(range(layers)),
            "backward": list(range(layers))[::-1],
            "last_first": [*range(1, layers), 0],
        }[self.order]
        return [min(1.0, max(0, step - place * each) * self.share) for place in places]


FREEZING_KEYS = tuple(f.name for f in fields(Freezing))


def freezing_of(keys: Mapping[str, Any], where: str) -> Freezing | None:
    """What the keys of a stage say; None where they say nothing of it.

    Raises: RuleError.
    """
    if not keys:
        return None
    if "freeze" not in keys:
        raise RuleError(
            f"{where}: {next(iter(keys))} belongs to a stage with freeze: full, layerwise or progressive"
        )
    for key, hint in get_type_hints(Freezing).items():
        known = get_args(hint)
        if key in keys and known and keys[key] not in known:
            said = f"{where}: {key} is {keys[key]!r}; expected {' or '.join(known)}"
            raise RuleError(said + did_you_mean(str(keys[key]), known))
    for key, low in (("share", 1e-4), ("refresh", 0.0)):
        value = keys.get(key, low)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= 1:
            raise RuleError(f"{where}: {key} is {value!r}; expected a number from {low:g} to 1")
    layerwise = {"order": "last_first", "share": 1.0} if keys["freeze"] == "layerwise" else {}
    return Freezing(**{**layerwise, **keys})
