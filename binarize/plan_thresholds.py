"""Where a layer's input hardly ever changes sign: a threshold, and what it starts from before any image is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from binarize.dataflow import Flow
from binarize.parts import Part
from binarize.plan import UNKNOWN_START
from binarize.plan_origins import NOTHING, Origins, first_path, max_window

__all__ = ["ThresholdChoice", "choose_threshold", "unknown_threshold"]

# The largest of nine values (3x3 pooling) is positive in 99.8 % of all cases; of four, in 94 %.
_ONE_SIDED_WINDOW = 9


@dataclass(frozen=True)
class ThresholdChoice:
    """Where the sign of a layer's input changes at the start."""

    # What the parameters in front tell, to start from.
    origin: dict[str, Any]
    # Whether the input binarizer holds it itself (RSign's per channel, AdaBin's centre).
    own: bool
    words: str


def choose_threshold(
    origins: Origins, site: int, input_part: Part | None, one_sided: bool
) -> ThresholdChoice | None:
    """A threshold per channel where the input never or hardly ever changes sign.

    Values that only max pooling pushed to one side need none of their own where the input binarizer has a centre that
    moves (AdaBin's beta): it starts there.
    """
    if not (one_sided or _pooled_away(origins.flow, site)):
        return None
    origin = origins.in_front(site)
    per_channel, per_layer = _own_thresholds(input_part)
    scope = "per layer" if per_layer and not one_sided and not per_channel else "per channel"
    start = _words(origin) if origin is not None else UNKNOWN_START
    own = per_channel or (per_layer and not one_sided)
    return ThresholdChoice(origin or dict(NOTHING), own, f"{scope}, {start}")


def unknown_threshold(input_part: Part | None) -> ThresholdChoice:
    """A threshold per channel for an input of which nothing is known."""
    return ThresholdChoice(dict(NOTHING), _own_thresholds(input_part)[0], f"per channel, {UNKNOWN_START}")


def _own_thresholds(input_part: Part | None) -> tuple[bool, bool]:
    """Whether the input binarizer holds thresholds itself: (per channel, per layer)."""
    if input_part is None:
        return False, False
    channels = 7
    module = input_part.build(channels=channels, channel_dim=1)
    sizes = [p.numel() for p in module.parameters()]
    movable = hasattr(module, "calibrate")
    return movable and any(size % channels == 0 for size in sizes), movable


def _words(origin: Mapping[str, Any]) -> str:
    joined = {"add": " and what is added to it", "concat": " and what stands beside it"}
    values = origin["activation"] or "the values"
    return f"mean of {values} behind {first_path(origin)}{joined.get(origin.get('op', ''), '')}"


def _pooled_away(flow: Flow, site: int) -> bool:
    """Whether max pooling chooses from so many values that nearly all of what is left is positive."""
    i, window = site, 1
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        window *= max_window(flow, i)
        if flow.kinds[i] not in ("identity", "pool"):
            break
    return window >= _ONE_SIDED_WINDOW
