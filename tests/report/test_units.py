from __future__ import annotations

import pytest

from binarize.report.units import count, percent, plural, shape, size, times


@pytest.mark.parametrize(
    "number, text",
    [
        (0, "0"),
        (999, "999"),
        (999.4, "999"),
        (999.5, "1.00 k"),
        (9_994, "9.99 k"),
        (9_996, "10.0 k"),
        (99_960, "100 k"),
        (999_500, "1.00 M"),
        (163_985_408, "164 M"),
        (1_814_073_344, "1.81 G"),
        (5e15, "5000 T"),
    ],
)
def test_counts_have_three_digits_and_a_prefix(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    "number, text",
    [
        (72, "72 B"),
        (1023, "1023 B"),
        (4608, "4.50 KiB"),
        (44_736_828, "42.66 MiB"),
        (515_311_164, "491.4 MiB"),
        (2**40, "1024.0 GiB"),
    ],
)
def test_sizes_are_in_powers_of_1024(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    "share, text",
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.991, "99.1 %"),
        (0.0001, "<0.1 %"),
        (0.9999, ">99.9 %"),
        (0.9994, "99.9 %"),
    ],
)
def test_only_nothing_and_all_are_written_as_0_and_100_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_factors_say_the_direction() -> None:
    assert times(29.8, 1) == "29.8x less"
    assert times(2, 3) == "1.50x more"
    assert times(2, 2) == "unchanged"
    assert times(0, 0) == times(1, 0) == ""


def test_shapes_are_shown_without_the_batch() -> None:
    assert shape((1, 64, 56, 56)) == "64×56×56"
    assert shape(()) == "-"
    assert plural(1, "layer") == "1 layer" and plural(2, "layer") == "2 layers"
