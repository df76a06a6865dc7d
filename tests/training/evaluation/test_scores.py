"""What an evaluation found, in words."""

from __future__ import annotations

import json

import pytest

from binarize.training.evaluation.scores import ClassScore, Evaluation, Scores

COSTS = {"macs": 6400, "flops": 100, "bops": 6400, "ops": 200.0, "float_bytes": 4096, "packed_bytes": 512}


def scores(top1: float, top5: float | None = None, mean_iou: float | None = None) -> Scores:
    classes = (ClassScore("cat", 4, 3), ClassScore("a|b", 0, 0))
    confused = tuple((f"c{i}", "cat", 20 - i) for i in range(12))
    return Scores(0.25, top1, top5, classes, ((3, 1), (0, 0)), confused, mean_iou)


def test_a_class_without_images_has_no_share() -> None:
    assert [one.share for one in scores(0.5).classes] == [0.75, None]


@pytest.mark.parametrize(
    ("found", "heads"),
    [
        (Evaluation("d", 4, scores(0.5), scores(0.75)), ("float", "binary")),
        (Evaluation("d", 4, scores(0.5)), ("float", "binary")),
        (Evaluation("d", 4, scores(0.5), binary=False), ("float",)),
        (Evaluation("d", 4, scores(0.5), scores(0.75), binary=False), ("compared with", "float")),
    ],
)
def test_every_line_has_a_cell_a_head(found: Evaluation, heads: tuple[str, ...]) -> None:
    assert found.heads == heads
    assert {len(row) for row in found.rows()} == {1 + len(heads)}
    assert {len(row) for row in found.class_rows()} == {2 + len(heads)}


def test_the_summary_has_the_lines_that_the_data_has() -> None:
    found = Evaluation("d", 4, scores(0.5, 0.9), scores(0.75, 1.0), 0.6, costs=COSTS)
    rows = {row[0]: row[1:] for row in found.rows()}
    assert list(rows) == [
        "top-1", "top-5", "loss", "says the same as the float model", "FLOPs", "BOPs", "OPs = FLOPs + BOPs / 64",
        "parameters",
    ]  # fmt: skip
    assert rows["top-1"] == ("75.0 %", "50.0 %") and rows["loss"] == ("0.2500", "0.2500")
    assert rows["BOPs"][0] == "0" and "32.0x" in rows["OPs = FLOPs + BOPs / 64"][1].replace(" ", "")
    pixels = Evaluation("d", 4, scores(0.5, mean_iou=0.25))
    assert [row[0] for row in pixels.rows()] == ["pixel accuracy", "mean IoU", "loss"]
    assert Evaluation("d", 4, None).rows() == Evaluation("d", 4, None).class_rows() == []
    assert Evaluation("d", 4, None).top1 is None and found.top1 == 0.5


def test_ten_of_the_mistakes_are_shown_the_most_frequent_first() -> None:
    rows = Evaluation("d", 4, scores(0.5)).confused_rows()
    assert rows == [(f"c{i}", "cat", str(20 - i)) for i in range(10)]


def test_markdown_has_all_parts_and_no_cell_ends_a_column() -> None:
    found = Evaluation(
        "d", 1, scores(0.5), correlation={"conv1": 0.5}, unreadable=("x.jpg: cut off",), costs=COSTS
    )
    text = found.to_markdown()
    assert text.startswith("# 1 image of d\n") and text.endswith("- x.jpg: cut off\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Classes",
        "## Confused most often",
        "## Layers",
        "## 1 image could not be read",
    ]
    assert "| a\\|b | 0 |" in text and "| `conv1` | 0.500 |" in text
    json.dumps(found.to_json(), allow_nan=False)
