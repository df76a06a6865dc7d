"""The rows of a study as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from binarize.studies.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

# Marks beside colours, so that lines can be told apart in grey.
_MARKS = "osD^vPX*"


def draw(
    title: str, rows: Sequence[Row], top1: Mapping[str, Sequence[float]], path: Path, chain: str | None
) -> None:
    """Draw the accuracy of each row: mean, spread and every seed (`top1` of its name).

    With `chain`, the name of an axis whose choices build on each other, lines run along it; else rows stand below each other.

    Raises: ModuleNotFoundError without matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.shown is not None]
    along = [row for row in shown if chain is not None and chain in row.labels]
    figure = Figure(figsize=(8, 4.5) if along else (8, 1.2 + 0.35 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    if along and chain is not None:
        _lines(axes, along, top1, chain)
    else:
        _below(axes, shown, top1)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    # The same rows give the same file.
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _lines(axes: Axes, rows: Sequence[Row], top1: Mapping[str, Sequence[float]], chain: str) -> None:
    steps = list(dict.fromkeys(row.labels[chain] for row in rows))
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault("/".join(v for k, v in row.labels.items() if k != chain) or chain, []).append(row)
    for i, (name, line) in enumerate(lines.items()):
        places = [steps.index(row.labels[chain]) for row in line]
        means = [100 * (row.shown or 0) for row in line]
        spreads = [100 * (row.spread or 0) for row in line]
        drawn = axes.errorbar(places, means, spreads, marker=_MARKS[i % len(_MARKS)], capsize=3, label=name)
        for place, row in zip(places, line):
            seeds = [100 * value for value in top1.get(row.name, ())]
            axes.scatter([place] * len(seeds), seeds, s=8, color=drawn.lines[0].get_color(), alpha=0.5)
    axes.set_xticks(range(len(steps)), steps)
    axes.set_xlabel(chain)
    axes.set_ylabel("top-1 %")
    axes.legend()


def _below(axes: Axes, rows: Sequence[Row], top1: Mapping[str, Sequence[float]]) -> None:
    places = list(range(len(rows)))[::-1]
    means = [100 * (row.shown or 0) for row in rows]
    axes.errorbar(means, places, xerr=[100 * (row.spread or 0) for row in rows], fmt="o", capsize=3)
    for place, row in zip(places, rows):
        seeds = [100 * value for value in top1.get(row.name, ())]
        axes.scatter(seeds, [place] * len(seeds), s=8, color="black", alpha=0.5, zorder=3)
    axes.set_yticks(places, [row.name for row in rows])
    axes.set_xlabel("top-1 %")
