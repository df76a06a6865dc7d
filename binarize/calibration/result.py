"""What a calibration did, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from binarize.layers.layer import BinaryLayer
from binarize.planning.advice import Advice, advise
from binarize.planning.plan import Plan
from binarize.planning.record.capture import Calibrated, CalibrationState

__all__ = ["Calibration", "Settled", "is_fitted", "with_thresholds"]


@dataclass
class Settled:
    """What was set, by the names of layers."""

    inputs: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    fitted: list[str] = field(default_factory=list)
    # Layer -> signs changed by the search; of how many.
    flipped: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Layer -> error over the float output's variance: (closed form, after the steps).
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """What was set, from how many images."""

    images: int
    # Layers whose threshold or input levels were set.
    layers: tuple[str, ...]
    # Norms whose running statistics were taken anew.
    norms: tuple[str, ...]
    # What the images are called, where they have a name.
    data: str | None = None
    # The float model that outputs were fitted to, in words; None where they were fitted to none, and why.
    reference: str | None = None
    why_none: str = ""
    # So many images of these were looked at layer by layer.
    settled_on: int = 0
    # Layers whose scale and shift were fitted, by least squares or by variance.
    fitted: tuple[str, ...] = ()
    fit: str | None = None
    # Layer -> (signs changed, of how many).
    flipped: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    # Steps of Adam a layer, and layer -> squared error over the float output's variance before and after them.
    steps: int = 0
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    # Steps of Adam of all layers together towards the float model's output, and the squared error of that over its
    # variance in the first tenth of them and in the last.
    joint_steps: int = 0
    distance: tuple[float, float] | None = None
    # Share of equal top classes with the float model on these images, where the outputs are class scores.
    agreement: float | None = None
    # Images that could not be read.
    unreadable: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def with_thresholds(plan: Plan, model: nn.Module, calibration: Calibration) -> Plan:
    """The plan with the source of every threshold that was set."""
    start = "mean" if calibration.reference is None else "mean and best split"
    words = f"{start} of {calibration.settled_on or calibration.images} images"
    if calibration.data:
        words += f" of {calibration.data}"
    if calibration.steps or calibration.joint_steps:
        words += ", then trained to the float model's output"
    decisions = tuple(
        replace(d, threshold=f"{_scope(model, d.layer.name)}, {words}")
        if d.layer.name in calibration.layers
        else d
        for d in plan.decisions
    )
    done = Calibrated(
        CalibrationState.DONE, calibration.images, calibration.data, fitted=bool(calibration.fitted)
    )
    # Another plan than the one that was read.
    capture = replace(plan.capture, calibration=done, written_as=None)
    unknown = {name for hint in plan.hints if hint.advice is Advice.CALIBRATE for name in hint.layers} - set(
        calibration.layers
    )
    hints = advise(decisions, plan.schemes, unknown)
    return replace(plan, decisions=decisions, hints=hints, capture=capture)


def is_fitted(plan: Plan) -> bool:
    """Whether a calibration fitted the model's outputs to the float model's."""
    return plan.capture.calibration.fitted


def _scope(model: nn.Module, name: str) -> str:
    """Whether the layer has a threshold for every channel of its input or one for all."""
    layer = model.get_submodule(name)
    assert isinstance(layer, BinaryLayer)
    channels = getattr(layer, "in_channels", getattr(layer, "in_features", 0))
    parts = [part for part in (layer.threshold, layer.input_binarizer) if part is not None]
    sizes = [p.numel() for part in parts for p in part.parameters()]
    return "per channel" if any(size > 1 and size % channels == 0 for size in sizes) else "per layer"
