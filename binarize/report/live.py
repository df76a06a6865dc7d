"""What binary layers read of the example images, and when that is too little to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from binarize.report.units import percent

__all__ = ["LiveShare", "MeasuredOn", "complaints", "finite"]

# What went through the network; of noise the shares look legal while real images leave half the channels dead.
MeasuredOn = Literal["calibration images", "example images", "noise", "made-up noise", "nothing"]

# A layer outside these reads something close to a constant.
MAX_CONSTANT_CHANNELS = 0.15
MIN_SHARE_PLUS, MAX_SHARE_PLUS = 0.02, 0.98


@dataclass(frozen=True)
class LiveShare:
    """Shares between 0 and 1: of +1 at a layer's binary input, and of its channels that have one sign."""

    share_plus: float
    constant_channels: float


def finite(live: LiveShare | None) -> LiveShare | None:
    """The shares as plain floats; None where they were not measured, or a NaN went through the network."""
    if live is None or not (isfinite(live.share_plus) and isfinite(live.constant_channels)):
        return None
    return LiveShare(float(live.share_plus), float(live.constant_channels))


def complaints(live: LiveShare | None) -> tuple[str, ...]:
    """What is wrong with the input of a layer; nothing where nothing was measured."""
    if live is None:
        return ()
    if finite(live) is None:
        return ("its input is not finite",)
    found = []
    if live.constant_channels > MAX_CONSTANT_CHANNELS:
        found.append(f"{percent(live.constant_channels)} of its input channels never change sign")
    if not MIN_SHARE_PLUS < live.share_plus < MAX_SHARE_PLUS:
        found.append(f"{percent(live.share_plus)} of its input is +1")
    return tuple(found)
