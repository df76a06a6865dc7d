"""How a model was seen is data; words of earlier versions become the same data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from binarize.planning.record.capture import (
    Calibrated,
    CalibrationState,
    Capture,
    Level,
    Refusal,
    ShapesFrom,
)
from binarize.planning.record.former import capture_of_words, former_scale_values


def test_a_record_comes_back_from_json() -> None:
    capture = Capture(
        Level.DEVICE, ShapesFrom.GIVEN, ("a branch",), ("resnet18",), (Refusal("", "no source"),),
        Calibrated(CalibrationState.NOISE, noise="white"), {"block": "00"}, "11", "22",
    )  # fmt: skip
    assert Capture.from_json(json.loads(json.dumps(capture.to_json()))) == capture
    assert Capture.from_json(Capture().to_json()) == Capture()


@pytest.mark.parametrize(
    "words, calibration",
    [
        ("", Calibrated()),
        ("none: not asked for", Calibrated(CalibrationState.NOT_ASKED)),
        ("none: no images were given", Calibrated(CalibrationState.NO_IMAGES)),
        ("none: the model was not run", Calibrated(CalibrationState.NOT_RUN)),
        # Of a model that did not run on real images.
        ("none: the example input is None", Calibrated(CalibrationState.NOT_RUN)),
        (
            "none: the example input is white noise: its pixels",
            Calibrated(CalibrationState.NOISE, noise="white noise: its pixels"),
        ),
        ("thresholds and BatchNorm statistics from 64 images", Calibrated(CalibrationState.DONE, 64)),
        (
            "thresholds, BatchNorm statistics and scales and shifts by least squares from 8 images of a, b from 3",
            Calibrated(CalibrationState.DONE, 8, "a, b from 3"),
        ),
        (
            "thresholds and BatchNorm statistics from 512 images of digits, 30 steps a layer, 9 steps of all layers",
            Calibrated(CalibrationState.DONE, 512, "digits"),
        ),
        ("something else", Calibrated(CalibrationState.DONE)),
    ],
)
def test_words_of_earlier_versions_become_a_state(words: str, calibration: Calibrated) -> None:
    assert capture_of_words({"calibration": words}).calibration == calibration


def test_what_else_was_said_is_kept() -> None:
    former: dict[str, Any] = {
        "level": "meta", "notes": ["a"], "containers": {"b": "c"}, "source": ["d"], "sources": {"b": "e"}, "fitted": True,
        "float_weights": "f", "calibration": "thresholds from 3 images",
    }  # fmt: skip
    assert capture_of_words(former) == Capture(
        Level.META, ShapesFrom.UNKNOWN, ("a",), ("d",), (Refusal("b", "c"),),
        Calibrated(CalibrationState.DONE, 3, fitted=True), {"b": "e"}, "f",
    )  # fmt: skip


@pytest.mark.parametrize("state", CalibrationState)
def test_training_may_set_thresholds_where_no_image_did_and_nobody_forbade_it(
    state: CalibrationState,
) -> None:
    may = {CalibrationState.NO_IMAGES, CalibrationState.NOT_RUN, CalibrationState.NOISE}
    assert Calibrated(state).may_start == (state in may)


def test_scales_of_earlier_plans_are_those_they_counted() -> None:
    names = (
        "adabin.AdaptiveWeight",
        "bireal.ScaledSign",
        "dorefa.LayerScaledSign",
        "bnn.SteSign",
        "mine.Own",
        None,
    )
    assert [former_scale_values(name, 64) for name in names] == [128, 64, 1, 0, 64, 0]
