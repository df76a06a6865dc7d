"""How a model was seen, and what was made of it since, as data. The report makes words of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Calibrated", "CalibrationState", "Capture", "Level", "Refusal", "ShapesFrom"]


class Level(Enum):
    """How the model's operations were recorded."""

    # Nothing is known of it: a plan that was put together by hand.
    UNKNOWN = ""
    # In a run without data, or with real tensors.
    META = "meta"
    DEVICE = "device"
    # It did not run: its modules were walked over.
    WALK = "walk"


class ShapesFrom(Enum):
    """Where the shapes of the input come from."""

    UNKNOWN = "unknown"
    # The user gave an example, or a shape; the library says it; the layers tell.
    EXAMPLE = "example"
    GIVEN = "given"
    LIBRARY = "library"
    INFERRED = "inferred"


class CalibrationState(Enum):
    """Whether thresholds and statistics were set from images, and why not."""

    # The plan was not carried out yet.
    PLANNED = "planned"
    DONE = "done"
    NOT_ASKED = "not asked for"
    NO_IMAGES = "no images"
    NOT_RUN = "not run"
    # The example input is no image.
    NOISE = "noise"


@dataclass(frozen=True)
class Refusal:
    """A container whose graph could not be edited; the path "" is the model itself."""

    container: str
    why: str


@dataclass(frozen=True)
class Calibrated:
    """The last calibration."""

    state: CalibrationState = CalibrationState.PLANNED
    images: int = 0
    # What the images are called, where they have a name; or, of noise, how one sees that it is none.
    data: str | None = None
    noise: str | None = None
    # Whether outputs were fitted to the float model's.
    fitted: bool = False

    @property
    def may_start(self) -> bool:
        """Whether training images may set the thresholds: none has, and the user did not forbid it."""
        return self.state in (CalibrationState.NO_IMAGES, CalibrationState.NOT_RUN, CalibrationState.NOISE)


@dataclass(frozen=True)
class Capture:
    """How the model was seen, and what was made of it since."""

    level: Level = Level.UNKNOWN
    shapes: ShapesFrom = ShapesFrom.UNKNOWN
    # What could not be recorded, as torch and the model's code said it; what loading the source found out.
    notes: tuple[str, ...] = ()
    source_notes: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    calibration: Calibrated = field(default_factory=Calibrated)
    # Container path -> sha256 of its rewritten forward.
    sources: Mapping[str, str] = field(default_factory=dict)
    # A digest of the float model's weights as conversion left them.
    float_weights: str | None = None
    # sha256 of the plan in the form of an older version that wrote it: files packed by that version name it.
    written_as: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        calibration = {**vars(self.calibration), "state": self.calibration.state.value}
        return {
            "level": self.level.value,
            "shapes": self.shapes.value,
            "notes": list(self.notes),
            "source_notes": list(self.source_notes),
            "refused": [vars(item) for item in self.refused],
            "calibration": calibration,
            "sources": dict(self.sources),
            "float_weights": self.float_weights,
            "written_as": self.written_as,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Capture:
        """The record that `to_json` wrote.

        Raises: KeyError, TypeError, ValueError, where it did not.
        """
        calibration = data["calibration"]
        return cls(
            level=Level(data["level"]),
            shapes=ShapesFrom(data["shapes"]),
            notes=tuple(data["notes"]),
            source_notes=tuple(data["source_notes"]),
            refused=tuple(Refusal(**item) for item in data["refused"]),
            calibration=Calibrated(**{**calibration, "state": CalibrationState(calibration["state"])}),
            sources=dict(data["sources"]),
            float_weights=data["float_weights"],
            written_as=data["written_as"],
        )
