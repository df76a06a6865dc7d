from __future__ import annotations

import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from binarize.errors import UsageError
from binarize.planning.plan import Plan
from binarize.report.drawing.html import STRIP_WIDTH, size_bars, strip, to_html
from binarize.report.report import make_report

pytest.importorskip("jinja2")

VOID = {"meta", "rect", "path", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_strip_is_in_proportion_to_macs_and_fills_its_width(plan: Plan) -> None:
    rows = make_report(plan).rows
    blocks = strip(rows)
    assert [block.row.name for block in blocks] == [row.name for row in rows]
    assert sum(block.width for block in blocks) == pytest.approx(STRIP_WIDTH, abs=0.1)
    assert all(a.x + a.width == pytest.approx(b.x, abs=0.02) for a, b in pairwise(blocks))
    assert blocks[6].width / blocks[1].width == pytest.approx(rows[6].cost.macs / rows[1].cost.macs, rel=1e-3)
    assert [block.arc > 0 for block in blocks] == [row.shortcut != "none" for row in rows]
    assert min(block.width for block in blocks) > 1


def test_strip_of_no_layers_or_no_macs_is_drawn(plan: Plan) -> None:
    assert strip(()) == ()
    idle = tuple(replace(item, layer=replace(item.layer, macs=0)) for item in plan.decisions)
    assert len(strip(make_report(replace(plan, decisions=idle)).rows)) == 8


def test_size_bars_add_up_to_the_totals(plan: Plan) -> None:
    report = make_report(plan)
    total = report.totals
    assert [bar.total for bar in size_bars(report)] == [
        total.float_bytes,
        total.latent_bytes,
        total.int8_bytes,
        total.packed_bytes,
    ]
    assert all(sum(part[2] for part in bar.parts) == bar.total for bar in size_bars(report))


def test_page_is_well_formed_self_contained_and_holds_every_layer(plan: Plan) -> None:
    page = Page(to_html(make_report(plan, command="binarize plan")))
    assert page.counts["tr"] == 1 + 8 and page.counts["rect"] == 8 and page.counts["path"] == 4
    assert page.links == [f"#layer-{number}" for number in range(1, 9)]
    assert "script" not in page.counts


def test_names_are_escaped(plan: Plan) -> None:
    text = to_html(make_report(replace(plan, source="<script>alert(1)</script>")))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_an_empty_report_is_a_page_too() -> None:
    Page(to_html(make_report(Plan("bnn", "empty", ()))))


def test_without_jinja2_the_message_says_what_to_install(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"pip install 'torch-binarize\[report\]'"):
        to_html(make_report(plan))
