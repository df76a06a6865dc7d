"""What the plan says of the parts of one layer."""

from __future__ import annotations

from dataclasses import dataclass

from binarize.analysis.layer import Layer
from binarize.planning.record.edit import NewActivation
from binarize.planning.record.edit_kinds import Swap
from binarize.planning.record.origin import Origin
from binarize.planning.shortcuts import ShortcutChange

__all__ = ["LayerParts"]


@dataclass
class LayerParts:
    """The parts of one binary layer, as data."""

    layer: Layer
    shortcut: ShortcutChange
    norm: str | None = None
    input_norm: str | None = None
    # None, or what the threshold starts from.
    threshold: Origin | None = None
    # Whether the input binarizer holds the per-channel threshold itself (RSign).
    own_threshold: bool = False
    activation: NewActivation | None = None
    activation_inside: bool = False
    activation_first: bool = False
    shortcut_inside: bool = False
    # Path of an activation inside a norm (BatchNormAct2d.act) that moved behind the new add.
    moved_activation: str | None = None
    norm_word: str = "none"
    activation_word: str = "none"
    threshold_word: str = "none"
    container: str | None = None
    extra_params: int = 0
    bitplanes: int = 1
    scale_values: int = 0
    # Positions of the output, where the scale has numbers for them.
    scale_size: tuple[int, ...] = ()

    def swap(self, scheme: str) -> Swap:
        """The edit that puts the layer with these parts in place."""
        return Swap(
            self.layer.name,
            scheme,
            norm=self.norm,
            input_norm=self.input_norm,
            threshold=self.threshold,
            own_threshold=self.own_threshold,
            shortcut=self.shortcut.spec if self.shortcut.action == "own" else None,
            shortcut_inside=self.shortcut_inside,
            activation=self.activation,
            activation_inside=self.activation_inside,
            channel_dim=channel_dim_of(self.layer),
            activation_first=self.activation_first,
            size=self.scale_size,
        )


def channel_dim_of(layer: Layer) -> int:
    """The axis of the channels in a layer's input and output."""
    # The input shape of a linear layer that never ran is unknown, but its channels are always the last axis.
    last = layer.kind == "linear" and (layer.capture == "walk" or len(layer.out_shape) > 2)
    return -1 if last else 1
