"""metrics.csv: one row an epoch, appended when the epoch is over, readable by everything."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from binarize.disk.atomic import whole_file

__all__ = ["MetricsFile", "Row", "read_metrics"]

# Column -> number or word; an empty cell is None.
Row = Mapping[str, float | int | str | None]


class MetricsFile:
    """A CSV file with fixed columns; rows of an earlier run that a resumed one makes again are dropped first."""

    def __init__(self, path: Path, columns: Sequence[str], *, keep: int = 0) -> None:
        self.path, self.columns = path, tuple(columns)
        kept = read_metrics(path)[:keep] if keep and path.is_file() else []
        with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows({key: _cell(value) for key, value in row.items()} for row in kept)

    def append(self, row: Row) -> None:
        """Write a row; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerow(
                {key: _cell(value) for key, value in row.items()}
            )
            file.flush()
            os.fsync(file.fileno())


def _cell(value: float | int | str | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def read_metrics(path: str | Path) -> list[dict[str, float | str | None]]:
    """The rows of a metrics.csv, numbers as numbers.

    Example:
        >>> [row["val_top1"] for row in read_metrics("net/metrics.csv")]    # doctest: +SKIP
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str | None) -> float | str | None:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
