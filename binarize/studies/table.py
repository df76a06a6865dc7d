"""The rows of a study as one table: for people in words, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import fields

from binarize.report.units import count, size
from binarize.studies.results import Row

__all__ = ["HEADS", "SHORT", "cells", "to_csv", "to_json", "to_markdown"]


def _top1(row: Row) -> str:
    if row.shown is None:
        return "failed" if row.failed else ""
    spread = "" if row.spread is None or row.top1 is None else f" ± {100 * row.spread:.2f}"
    return f"{100 * row.shown:.2f}{spread}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _seeds(row: Row) -> str:
    asked = len(row.seeds) + row.failed + row.missing
    return str(asked) if len(row.seeds) == asked else f"{len(row.seeds)} of {asked}"


def _seconds(row: Row) -> str:
    least, most = row.epoch_seconds_min, row.epoch_seconds_max
    if least is None or most is None:
        return ""
    return f"{least:.2g} - {most:.2g}" if most < 10 else f"{least:.0f} - {most:.0f}"


def _known(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


# (head, whether a terminal shows it without being asked, what stands in the cell)
_COLUMNS: tuple[tuple[str, bool, Callable[[Row], str]], ...] = (
    ("trial", True, lambda row: row.name),
    ("seeds", True, _seeds),
    ("top-1 %", True, _top1),
    ("least", True, lambda row: _share(row.top1_min)),
    ("most", True, lambda row: _share(row.top1_max)),
    ("loss", True, lambda row: _known(row.loss, lambda value: f"{value:.4f}")),
    ("held out %", False, lambda row: _share(row.val_top1)),
    ("s/epoch", True, _seconds),
    ("memory", True, lambda row: _known(row.memory, size)),
    ("GPU memory", False, lambda row: _known(row.device_memory, size)),
    ("FLOPs", False, lambda row: _known(row.flops, count)),
    ("BOPs", False, lambda row: _known(row.bops, count)),
    ("OPs", True, lambda row: _known(row.ops, count)),
    ("float", False, lambda row: _known(row.float_bytes, size)),
    ("latent", False, lambda row: _known(row.latent_bytes, size)),
    ("packed", True, lambda row: _known(row.packed_bytes, size)),
    ("minutes", True, lambda row: _known(row.minutes, lambda value: f"{value:.1f}")),
)  # fmt: skip
HEADS = tuple(head for head, _, _ in _COLUMNS)
# Of these, the ones for a terminal.
SHORT = tuple(i for i, (_, short, _) in enumerate(_COLUMNS) if short)


def cells(row: Row) -> tuple[str, ...]:
    """One row in words, a cell for each head."""
    return tuple(write(row) for _, _, write in _COLUMNS)


def to_markdown(title: str, description: str, rows: Sequence[Row]) -> str:
    """The table in GitHub's Markdown, ending with a newline."""
    lines = [f"# {title}", ""]
    lines += [description, ""] if description else []
    for line in (HEADS, ("---", *["---:"] * (len(HEADS) - 1)), *map(cells, rows)):
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |")
    return "\n".join([*lines, "", _NOTE, ""])


_NOTE = (
    "Top-1 and loss are those on the test images, seen once by the trained network: mean and standard deviation over seeds, "
    "least and most. Choices are for the held-out images. Memory is the most that the whole process held. "
    "OPs = FLOPs + BOPs / 64."
)


def to_csv(rows: Sequence[Row]) -> str:
    """The numbers themselves, a line a row."""
    names = [field.name for field in fields(Row)]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        data = row.to_json()
        labels = " ".join(f"{axis}={label}" for axis, label in row.labels.items())
        writer.writerow({**data, "labels": labels, "seeds": " ".join(map(str, row.seeds))})
    return file.getvalue()


def to_json(rows: Sequence[Row]) -> str:
    """The numbers as one JSON document."""
    return json.dumps([row.to_json() for row in rows], indent=1) + "\n"
