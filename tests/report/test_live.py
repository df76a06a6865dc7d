from __future__ import annotations

import pytest

from binarize.report.live import LiveShare, complaints, finite


@pytest.mark.parametrize("share, constant", [(0.5, 0.0), (0.021, 0.15), (0.979, 0.15)])
def test_a_live_input_is_no_complaint(share: float, constant: float) -> None:
    assert complaints(LiveShare(share, constant)) == ()
    assert complaints(None) == ()


@pytest.mark.parametrize(
    "share, constant, found", [(1.0, 0.0, 1), (0.02, 0.0, 1), (0.5, 0.16, 1), (1.0, 1.0, 2)]
)
def test_a_nearly_constant_input_is_complained_of(share: float, constant: float, found: int) -> None:
    assert len(complaints(LiveShare(share, constant))) == found


def test_an_input_that_is_not_finite_is_said_and_left_out() -> None:
    assert complaints(LiveShare(float("nan"), 0.0)) == ("its input is not finite",)
    assert finite(LiveShare(float("nan"), 0.0)) is None
    assert finite(LiveShare(0.5, 0.0)) == LiveShare(0.5, 0.0)
