from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from binarize.planning.plan import Plan
from binarize.report.drawing.table import GAP, Layout, layout, layouts
from binarize.report.live import LiveShare
from binarize.report.report import make_report


def cell(table: Layout, line: int, title: str) -> str:
    titles = [column.title for column in table.columns]
    return table.lines[line].cells[titles.index(title)]


def test_columns_come_in_as_the_width_allows_and_fit(plan: Plan) -> None:
    rows = make_report(plan).rows
    counts = []
    for width in range(70, 300, 10):
        table = layout(rows, width)
        texts = [[column.title for column in table.columns], *(line.cells for line in table.lines)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        assert sum(widths) + GAP * (len(widths) - 1) <= width
        counts.append(len(widths))
    assert counts[0] < counts[7] < counts[-1]


def test_first_columns_stay_and_empty_ones_never_come(plan: Plan) -> None:
    rows = make_report(plan).rows
    assert [column.title for column in layout(rows, 10).columns] == ["layer", "decision", "rule"]
    titles = {column.title for column in layout(rows, 1000).columns}
    assert "norm" in titles and not {"threshold", "+1 in", "constant"} & titles


def test_equal_layers_share_a_line_unless_all_rows(plan: Plan) -> None:
    report = make_report(plan)
    assert layout(report.rows, 200).folded == "equal"
    assert layout(report.rows, 200).lines[1].cells[0] == "blocks.[0-1].conv[1-2] ×4"
    assert len(layout(report.rows, 200, all_rows=True).lines) == 8
    assert layout(report.rows, 200, all_rows=True).folded == "no"
    assert layout(report.rows[-2:], 200).folded == "no"


@pytest.mark.parametrize(
    "change",
    [
        {"shortcut": "none"},
        {"why": "mine"},
        {"norm": "none"},
        {"extra_params": 1},
        {"in_shape": (1, 16, 64, 64)},
    ],
    ids=str,
)
def test_any_other_difference_keeps_layers_apart(plan: Plan, change: dict[str, Any]) -> None:
    last = plan.decisions[4]
    layer = replace(last.layer, in_shape=change.get("in_shape", last.layer.in_shape))
    fields = {name: value for name, value in change.items() if name != "in_shape"}
    other = replace(last, layer=layer, **fields)
    rows = make_report(replace(plan, decisions=(*plan.decisions[:4], other))).rows
    assert [line.cells[0] for line in layout(rows, 200).lines][-1] == "blocks.1.conv2"


def test_norms_beside_equal_layers_do_not_keep_them_apart(plan: Plan) -> None:
    beside = tuple(
        replace(item, norm=f"kept {item.layer.name.replace('conv', 'bn')}") for item in plan.decisions[1:5]
    )
    table = layout(make_report(replace(plan, decisions=beside)).rows, 200)
    assert len(table.lines) == 1 and cell(table, 0, "norm") == "kept bn[1-2]"


def test_a_line_shows_the_range_of_what_was_measured(plan: Plan) -> None:
    live = {f"blocks.{block}.conv1": LiveShare(0.4 + block / 10, 0.1) for block in range(2)}
    table = layout(make_report(plan, live=live).rows, 300)
    assert cell(table, 1, "+1 in") == "40.0 % – 50.0 %" and cell(table, 1, "constant") == "10.0 %"
    assert cell(table, 0, "+1 in") == "-"


def test_a_long_table_folds_layers_that_were_decided_alike(plan: Plan) -> None:
    """A dense block: every layer reads more channels than the one before, so that none are equal."""
    one = plan.decisions[1]
    many = tuple(
        replace(one, layer=replace(one.layer, name=f"dense.{n}.conv", macs=1000 * n, in_shape=(1, n, 8, 8)))
        for n in range(1, 51)
    )
    kept = replace(plan.decisions[0], layer=replace(one.layer, name="dense.60.conv"))
    table = layout(make_report(replace(plan, decisions=(*many, kept))).rows, 300)
    assert table.folded == "similar"
    assert [line.cells[0] for line in table.lines] == ["dense.[1-50].conv ×50", "dense.60.conv"]
    assert (
        cell(table, 0, "MACs") == "1.00 k – 50.0 k" and cell(table, 0, "in → out") == "[1-50]×8×8 → 16×32×32"
    )
    assert layout(make_report(replace(plan, decisions=many[:40])).rows, 300).folded == "no"


@pytest.mark.parametrize("width", [60, 100, 160, 1000])
def test_with_all_rows_every_column_stands_in_some_table(width: int, plan: Plan) -> None:
    rows = make_report(plan).rows
    tables = layouts(rows, width, all_rows=True)
    titles = [column.title for table in tables for column in table.columns if column.title != "layer"]
    assert len(titles) == len(set(titles))
    (wide,) = layouts(rows, 10_000, all_rows=True)
    assert set(titles) == {column.title for column in wide.columns} - {"layer"}
    assert all(len(table.lines) == len(rows) for table in tables)
    assert len(layouts(rows, width)) == 1
