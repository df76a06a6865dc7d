from __future__ import annotations

import re
from dataclasses import replace

from binarize.planning.plan import Plan
from binarize.report.drawing.markdown import to_markdown
from binarize.report.live import LiveShare
from binarize.report.report import make_report


def table(text: str) -> list[list[str]]:
    """The cells of the table of layers, its head first."""
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_every_layer_is_a_line_of_the_table(plan: Plan) -> None:
    rows = table(to_markdown(make_report(plan)))
    assert [cells[0].strip() for cells in rows[2:]] == [f"`{item.layer.name}`" for item in plan.decisions]
    assert len({len(cells) for cells in rows}) == 1


def test_measured_columns_come_where_something_was_measured(plan: Plan) -> None:
    rows = table(to_markdown(make_report(plan, live={"mixing": LiveShare(0.5, 0.0)})))
    assert rows[0][-2:] == [" +1 at input ", " constant channels "]
    assert rows[7][-2:] == [" 50.0 % ", " 0 % "]
    assert len({len(cells) for cells in rows}) == 1


def test_text_that_is_markdown_is_shown_as_it_is(plan: Plan) -> None:
    odd = replace(plan.decisions[0], why="a|b *c* <d>\nnext")
    text = to_markdown(make_report(replace(plan, decisions=(odd,))))
    assert len({len(cells) for cells in table(text)}) == 1
    assert r"a\|b \*c\* \<d\> next" in text
