"""How the report writes numbers: the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count", "percent", "plural", "shape", "size", "times"]

_THIN = 1000.0


def count(number: float) -> str:
    """A count with three digits and a decimal prefix: 1814073344 -> "1.81 G"."""
    value = float(number)
    for prefix in ("", " k", " M", " G", " T"):
        # 999.5 would print as 1000: it belongs to the next prefix.
        if value < _THIN - 0.5 or prefix == " T":
            break
        value /= _THIN
    if not prefix:
        return f"{value:.0f}"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{prefix}"


def size(number: float) -> str:
    """Bytes as B, KiB, MiB or GiB: 44736828 -> "42.66 MiB"."""
    if number < 1024:
        return f"{number:.0f} B"
    value, unit = number / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.{2 if value < 99.995 else 1}f} {unit}"


def percent(share: float) -> str:
    """A share of 1 in percent; only 0 and 1 themselves are written as nothing and as all."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def times(before: float, after: float) -> str:
    """By what factor `after` is less than `before`: "29.8x less"."""
    if after <= 0 or before <= 0:
        return ""
    if after == before:
        return "unchanged"
    if after > before:
        return f"{after / before:.2f}x more"
    return f"{before / after:.1f}x less"


def plural(number: int, noun: str) -> str:
    """ "1 layer", "3 layers"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shape(dims: Sequence[int]) -> str:
    """A shape without its batch: (1, 64, 56, 56) -> "64x56x56", with a multiplication sign."""
    return "×".join(str(dim) for dim in dims[1:]) or "-"
