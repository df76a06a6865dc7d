"""What happens to one layer, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from binarize.analysis.layer import Layer

__all__ = ["UNKNOWN_START", "Decision"]

# How a decision's threshold ends where nothing tells the mean of the input before an image was seen.
UNKNOWN_START = "0 until calibrated"


@dataclass(frozen=True)
class Decision:
    """What happens to one layer, and why.

    `shortcut`, `norm`, `activation` and `threshold` say in words what the rewriting resolved to; `edits` of the plan
    hold the machine-readable side.
    """

    layer: Layer
    action: Literal["binarize", "keep"]
    # The sentence shown in the report: the rule's `why`, or the guard's reason.
    why: str
    # Name of the scheme for binarized layers.
    scheme: str | None = None
    weights_only: bool = False
    # The winning rule's id and file:line, None where no rule matched.
    rule: str | None = None
    where: str | None = None
    # Set where a guard turned "binarize" into "keep".
    guard: str | None = None
    # "none", or ShortcutSpec.kind ("identity", "avgpool2+repeat2", ...), or "block" where the block's own shortcut is taken.
    shortcut: str = "none"
    shortcut_why: str = ""
    # "none", "kept bn1", "added BatchNorm2d".
    norm: str = "none"
    # What happened to the activation in front of the sign: "none", "kept ReLU", "ReLU -> adabin.Maxout", "dropped ReLU".
    activation: str = "none"
    # "none", or how the per-channel threshold in front of the sign was started.
    threshold: str = "none"
    # Module in which graph edits for this layer were made; "" is the root, None where none were needed.
    container: str | None = None
    # Float parameters added for this layer: norm, nonlinearity, learned scales, thresholds, projections.
    extra_params: int = 0
    # Binary planes of the input (1, or K for K-threshold activations).
    bitplanes: int = 1
    # Floats that the packed layer keeps for the two values of its weights; a scale that is trained is in `extra_params`.
    scale_values: int = 0

    @property
    def binary(self) -> bool:
        """Whether the layer is binarized."""
        return self.action == "binarize"
