"""Where a layer's input hardly ever changes sign: a threshold, and what it starts from before any image is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from binarize.dataflow import Flow
from binarize.parts import Part
from binarize.plan_activations import ActivationChange

__all__ = ["ThresholdChoice", "choose_threshold", "unknown_threshold"]

# The largest of nine values (3x3 pooling) is positive in 99.8 % of all cases; of four, in 94 %.
_ONE_SIDED_WINDOW = 9
# What the statistics say where nothing in front of the layer tells any.
_UNKNOWN = {"norm": None, "activation": "", "window": 1, "factor": 1.0}
# A sigmoid gate at the start of training.
_GATE_AT_START = 0.5


@dataclass(frozen=True)
class ThresholdChoice:
    """Where the sign of a layer's input changes at the start."""

    # The float statistics that it starts from.
    origin: dict[str, Any]
    # Whether the input binarizer holds it itself (RSign's per channel, AdaBin's centre).
    own: bool
    words: str


def choose_threshold(
    flow: Flow, site: int, input_part: Part | None, one_sided: bool, changed: Mapping[int, ActivationChange]
) -> ThresholdChoice | None:
    """A threshold per channel where the input never or hardly ever changes sign.

    Values that only max pooling pushed to one side need none of their own where the input binarizer has a centre that
    moves (AdaBin's beta): it starts there.
    """
    if not (one_sided or _pooled_away(flow, site)):
        return None
    origin = _statistics_in_front(flow, site, changed)
    per_channel, per_layer = _own_thresholds(input_part)
    scope = "per layer" if per_layer and not one_sided and not per_channel else "per channel"
    start = (
        f"mean of {origin['activation'] or 'the values'} behind {origin['norm']}"
        if origin
        else "0 until calibrated"
    )
    own = per_channel or (per_layer and not one_sided)
    return ThresholdChoice(origin or dict(_UNKNOWN), own, f"{scope}, {start}")


def unknown_threshold(input_part: Part | None) -> ThresholdChoice:
    """A threshold per channel for an input of which nothing is known."""
    return ThresholdChoice(dict(_UNKNOWN), _own_thresholds(input_part)[0], "per channel, 0 until calibrated")


def _own_thresholds(input_part: Part | None) -> tuple[bool, bool]:
    """Whether the input binarizer holds thresholds itself: (per channel, per layer)."""
    if input_part is None:
        return False, False
    channels = 7
    module = input_part.build(channels=channels, channel_dim=1)
    sizes = [p.numel() for p in module.parameters()]
    movable = hasattr(module, "calibrate")
    return movable and any(size % channels == 0 for size in sizes), movable


def _statistics_in_front(
    flow: Flow, site: int, changed: Mapping[int, ActivationChange]
) -> dict[str, Any] | None:
    """What tells the mean of the layer's input before any image is seen.

    {norm: path of the norm in front, activation: between them, window: values a max pooling chooses from,
    factor: the share that a gate lets through at its start}
    """
    i, activation, window, factor = site, "", 1, 1.0
    while flow.data_inputs[i]:
        # A gate's other operand is the small one, one number a channel.
        i = (
            max(flow.data_inputs[i], key=lambda j: math.prod(flow.shape(j)))
            if flow.kinds[i] == "gate"
            else (flow.data_inputs[i][0])
        )
        kind, node = flow.kinds[i], flow.nodes[i]
        window *= _max_window(flow, i)
        if kind == "gate":
            factor *= _GATE_AT_START
        if kind in ("activation", "norm_act") and not activation and i not in changed:
            activation = flow.activation_name(i)
        if kind in ("norm", "norm_act") and node.op == "call_module":
            return {"norm": str(node.target), "activation": activation, "window": window, "factor": factor}
        if kind not in ("identity", "pool", "activation", "gate"):
            return None
    return None


def _pooled_away(flow: Flow, site: int) -> bool:
    """Whether max pooling chooses from so many values that nearly all of what is left is positive."""
    i, window = site, 1
    while flow.data_inputs[i]:
        i = flow.data_inputs[i][0]
        window *= _max_window(flow, i)
        if flow.kinds[i] not in ("identity", "pool"):
            break
    return window >= _ONE_SIDED_WINDOW


def _max_window(flow: Flow, i: int) -> int:
    """How many values one value behind a max pooling is chosen from; 1 for anything else."""
    op = flow.op(i).lower().replace("_", "")
    if not op.startswith("maxpool"):
        return 1
    module, node = flow.module(i), flow.nodes[i]
    size = getattr(module, "kernel_size", None) if module is not None else (node.args[1:2] or (1,))[0]
    sizes = size if isinstance(size, (list, tuple)) else [size] * (len(flow.shape(i)) - 2)
    return math.prod(tuple(int(n) for n in sizes if isinstance(n, int)))
