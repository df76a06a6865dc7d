from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from binarize.planning.plan import Plan
from binarize.report.difference import diff
from binarize.report.drawing.terminal import render, render_difference, to_text
from binarize.report.live import LiveShare
from binarize.report.report import make_report


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 250])
def test_nothing_is_wider_than_the_terminal(plan: Plan, width: int) -> None:
    text = to_text(make_report(plan, live={"mixing": LiveShare(0.9, 0.1)}), width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_eighty_columns_show_layer_decision_rule_and_macs_on_one_line(plan: Plan) -> None:
    lines = to_text(make_report(plan), 80).splitlines()
    stem = next(line for line in lines if line.startswith("stem "))
    assert stem.split() == ["stem", "○", "float", "first", "@", "adabin.yaml:16", "442", "k", "1.69", "KiB"]


def test_a_note_says_what_a_folded_line_means(plan: Plan) -> None:
    report = make_report(plan)
    assert "×N: N equal layers" in to_text(report)
    assert "×N" not in to_text(report, all_rows=True)


def test_a_terminal_without_unicode_gets_ascii(plan: Plan) -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100, color_system=None)
    console.print(render(make_report(plan)))
    console.file.flush()
    text = raw.getvalue().decode("ascii")
    assert "# adabin" in text and "- float" in text and "x4" in text


def test_names_that_look_like_markup_are_printed_as_they_are(plan: Plan) -> None:
    assert "[bold]x[/bold]" in to_text(make_report(replace(plan, source="[bold]x[/bold]")))


def test_layers_alike_but_for_their_numbers_share_a_line(plan: Plan) -> None:
    layer = plan.decisions[1]
    many = tuple(replace(layer, layer=replace(layer.layer, name=f"l{n}", macs=n + 1)) for n in range(400))
    report = make_report(replace(plan, decisions=many))
    assert "l[0-399] ×400" in to_text(report, 120)
    assert "l399" in to_text(report, 120, all_rows=True)


def test_differences_of_a_whole_stage_are_one_line(plan: Plan) -> None:
    changed = tuple(
        replace(item, shortcut="none") if item.shortcut != "none" else item for item in plan.decisions
    )
    difference = diff(make_report(plan), make_report(replace(plan, decisions=changed)))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as capture:
        console.print(render_difference(difference))
    assert "blocks.[0-1].conv[1-2]  shortcut  identity → none" in capture.get()
