"""metrics.csv: what was written is read back, and a file that something else wrote is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from binarize.errors import SourceError
from binarize.training.records.metrics import MetricsFile, read_metrics


def test_rows_come_back_as_numbers(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv", ("stage", "epoch", "loss", "val_top1", "flips/a,b"))
    file.append(
        {"stage": 1, "epoch": 1, "loss": 0.25, "val_top1": None, "flips/a,b": float("inf"), "more": 3}
    )
    assert read_metrics(file.path) == [
        {"stage": 1, "epoch": 1, "loss": 0.25, "val_top1": None, "flips/a,b": float("inf")}
    ]


def test_a_resumed_run_keeps_the_first_rows(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv", ("stage", "epoch"))
    for epoch in (1, 2, 3):
        file.append({"stage": 1, "epoch": epoch})
    again = MetricsFile(file.path, ("stage", "epoch", "loss"), keep=2)
    again.append({"stage": 1, "epoch": 3, "loss": 0.5})
    assert [row["epoch"] for row in read_metrics(file.path)] == [1, 2, 3]
    assert [row["loss"] for row in read_metrics(file.path)] == [None, None, 0.5]


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"epoch,stage\n1,two\n", 'stage is "two"; expected one row of numbers'),
        (b"epoch,loss\n1,2\n", "a row without stage and epoch"),
        (b"epoch,stage\n1\n", "a row without stage and epoch"),
        (b"epoch,stage\n1,2,3\n", "a row with more cells than columns"),
        (b"\xff\xfe\x00,stage\n1,2\n", "'utf-8' codec can't decode"),
        (b'epoch,stage\n"1,2\n', "unexpected end of data"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(raw)
    with pytest.raises(SourceError) as caught:
        read_metrics(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)
