"""A curve in characters, the same on a terminal and in a file."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["curve"]


def curve(values: Sequence[float], height: int = 7, title: str = "") -> list[str]:
    """Lines that show the values from left to right, the largest and smallest of them named; 0 is a line of dots.

    Raises: ValueError, where there is nothing to draw.
    """
    if not values:
        raise ValueError("curve: no values; expected one at least")
    low, high = min(*values, 0.0), max(*values, 0.0)
    span = (high - low) or 1.0
    rows = [round((high - value) / span * (height - 1)) for value in values]
    zero = round(high / span * (height - 1))
    labels = {0: f"{high:.3g}", height - 1: f"{low:.3g}", zero: "0"}
    width = max(map(len, labels.values()))
    lines = [f"{'':{width}}  {title}"] if title else []
    for row in range(height):
        marks = "".join("*" if at == row else "." if row == zero else " " for at in rows)
        lines.append(f"{labels.get(row, ''):>{width}} |{marks}".rstrip())
    return lines
