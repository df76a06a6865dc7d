"""What plans of earlier versions said in words and dictionaries, in the form of today."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from binarize.planning.record.capture import Calibrated, CalibrationState, Capture, Level, Refusal

__all__ = ["capture_of_words", "former_scale_values"]

_STATES = {
    "none: not asked for": CalibrationState.NOT_ASKED,
    "none: no images were given": CalibrationState.NO_IMAGES,
    "none: the model was not run": CalibrationState.NOT_RUN,
    # What was written of a model that did not run on real images.
    "none: the example input is None": CalibrationState.NOT_RUN,
}
_NOISE = "none: the example input is "
# "thresholds and BatchNorm statistics from 64 images of digits, 30 steps a layer".
_DONE = re.compile(r".* from (\d{1,18}) images(?: of (.*?))?(?:, \d+ steps .*)?", re.DOTALL)

# Floats per filter and per layer that plans counted for the scales of a binarizer, by the file it stands in.
_SCALES: Mapping[str, tuple[int, int]] = {
    "adabin": (2, 0),
    "binaryconnect": (0, 0),
    "bnn": (0, 0),
    "dorefa": (0, 1),
}


def capture_of_words(data: Mapping[str, Any]) -> Capture:
    """The record of a plan that said in words what became of calibration."""
    return Capture(
        level=Level(data.get("level", "")),
        notes=tuple(data.get("notes", ())),
        source_notes=tuple(data.get("source", ())),
        refused=tuple(Refusal(path, why) for path, why in dict(data.get("containers", {})).items()),
        calibration=_calibrated(str(data.get("calibration", "")), bool(data.get("fitted"))),
        sources=dict(data.get("sources", {})),
        float_weights=data.get("float_weights"),
    )


def _calibrated(words: str, fitted: bool) -> Calibrated:
    if words in _STATES:
        return Calibrated(_STATES[words])
    if words.startswith(_NOISE):
        return Calibrated(CalibrationState.NOISE, noise=words.removeprefix(_NOISE))
    if not words:
        return Calibrated()
    found = _DONE.fullmatch(words)
    images, data = (int(found[1]), found[2]) if found else (0, None)
    return Calibrated(CalibrationState.DONE, images, data, fitted=fitted)


def former_scale_values(weight: str | None, filters: int) -> int:
    """How many floats a plan without the number counted for the scales of a weight binarizer of that name."""
    if weight is None:
        return 0
    per_filter, per_layer = _SCALES.get(weight.partition(".")[0], (1, 0))
    return per_filter * filters + per_layer
