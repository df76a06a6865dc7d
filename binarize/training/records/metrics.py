"""metrics.csv: one row an epoch, appended when the epoch is over, readable by everything."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from binarize.disk.atomic import whole_file
from binarize.errors import SourceError

__all__ = ["MetricsFile", "Row", "read_metrics"]

# Column -> number; an empty cell is None.
Row = Mapping[str, float | int | None]


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


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def read_metrics(path: str | Path) -> list[dict[str, float | None]]:
    """The rows of a metrics.csv: column -> number; an empty cell is None.

    Raises: SourceError, where it is no CSV file of numbers.

    Example:
        >>> [row["val_top1"] for row in read_metrics("net/metrics.csv")]    # doctest: +SKIP
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        try:
            reader = csv.DictReader(file, restkey="", strict=True)
            rows = [{key: _number(key, text) for key, text in row.items()} for row in reader]
        except (csv.Error, ValueError) as error:  # no UTF-8 is a ValueError too
            raise SourceError(
                f"{path}: {error}; expected one row of numbers an epoch\n"
                "  move it away: a training goes on without it, and begins a new one"
            ) from error
    for row in rows:
        if not {"stage", "epoch"} <= row.keys() or None in (row["stage"], row["epoch"]):
            raise SourceError(f"{path}: a row without stage and epoch; expected one row of numbers an epoch")
    return rows


def _number(key: str, text: str | None) -> float | None:
    if not text:
        return None
    if not key or not isinstance(text, str):
        raise ValueError("a row with more cells than columns")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    raise ValueError(f'{key} is "{text[:40]}"')
