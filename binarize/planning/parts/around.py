"""What the parts of a layer follow from, beside the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from binarize.planning.activations import ActivationChange
from binarize.planning.parts.random_signs import NOT_RANDOM, RandomSigns
from binarize.planning.shortcuts import ShortcutChange

__all__ = ["Around"]


@dataclass(frozen=True)
class Around:
    """What was decided about what lies between layers; what is measured of their inputs, whatever the graph tells of it."""

    activations: Mapping[int, ActivationChange]
    shortcuts: Mapping[str, ShortcutChange]
    random_signs: RandomSigns = NOT_RANDOM
    # Layers whose input has hardly more than one sign.
    one_sided: Collection[str] = ()
