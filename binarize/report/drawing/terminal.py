"""The report for a terminal: a table that folds repeated blocks and fits the width, then the summary."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from binarize.report.data import ReportData
from binarize.report.difference import Difference
from binarize.report.drawing.console import PlainConsole
from binarize.report.drawing.table import GAP, Layout, layouts
from binarize.report.names import fold_names
from binarize.report.words import closing, decision_word, facts, headline, notices

__all__ = ["render", "render_difference", "to_text"]

_ASCII = str.maketrans(
    {"●": "#", "◐": "+", "○": "-", "→": "->", "×": "x", "·": "|", "✓": "ok", "✗": "FAILED", "–": "-"}
)
_NOTES = {
    "equal": "×N: N equal layers; the numbers are those of one.",
    "similar": "×N: N layers decided alike; the numbers are the least and the greatest of them.",
}
_STYLES = {"●": "bold cyan", "◐": "cyan", "○": "yellow"}


def render(report: ReportData, width: int | None = None, all_rows: bool = False) -> RenderableType:
    """The report as something rich prints; `width` in cells, None for the terminal's own.

    Rows of equal layers in repeated blocks are folded into one unless `all_rows`.
    Example: `rich.print(render(report))`
    """
    return _View(report, width, all_rows)


def to_text(report: ReportData, width: int = 100, all_rows: bool = False) -> str:
    """What `render` shows, as plain text without colours."""
    console = PlainConsole(
        file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    with console.capture() as capture:
        console.print(render(report, width, all_rows), crop=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


@dataclass(frozen=True)
class _View:
    report: ReportData
    width: int | None
    all_rows: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = self.width or options.max_width
        yield from _parts(self.report, width, self.all_rows, options.ascii_only)


def _parts(report: ReportData, width: int, all_rows: bool, ascii_only: bool) -> Iterator[RenderableType]:
    def text(words: str, style: str = "") -> Text:
        return Text(words.translate(_ASCII) if ascii_only else words, style)

    yield text(f"{report.name} on {report.source}", "bold")
    yield Text()
    table, *further = layouts(report.rows, width, all_rows)
    yield _sized(_drawn(table, ascii_only), width)
    for part in further:
        yield Text()
        yield _sized(_drawn(part, ascii_only), width)
    if table.folded in _NOTES:
        yield _sized(text(f"{_NOTES[table.folded]} --all shows every row.", "dim"), width)
    yield Text()
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    previous = ""
    for label, sentence in facts(report):
        grid.add_row("" if label == previous else label, text(sentence, "dim" if label == "units" else ""))
        previous = label
    for label, sentence in notices(report):
        grid.add_row(Text(label, "bold yellow" if label == "warning" else "bold"), text(sentence))
    yield _sized(grid, width)
    yield Text()
    line = headline(report)
    yield _sized(text(line, "bold green" if line.startswith("✓") else "bold red"), width)
    for sentence in closing(report):
        if sentence.startswith("next: "):
            # To be typed as it stands: it is never broken in two.
            yield Text(f"  {sentence}", no_wrap=True, overflow="ignore")
            continue
        yield _sized(Padding(text(sentence), (0, 0, 0, 2)), width)


def _sized(part: RenderableType, width: int) -> RenderableType:
    """`part` within `width` cells, whatever the console has."""
    return Constrain(part, width)


def _drawn(table: Layout, ascii_only: bool) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in table.columns:
        drawn.add_column(
            column.title.translate(_ASCII) if ascii_only else column.title,
            justify="right" if column.number else "left",
            no_wrap=column.title != "why" and (column.rank > 0 or column.title == "decision"),
            overflow="fold",
        )
    for line in table.lines:
        style = _STYLES[decision_word(line.rows[0])[0]]
        drawn.add_row(
            *(
                Text(
                    cell.translate(_ASCII) if ascii_only else cell,
                    style if column.title == "decision" else "",
                )
                for column, cell in zip(table.columns, line.cells, strict=True)
            )
        )
    return drawn


def render_difference(difference: Difference) -> RenderableType:
    """Two reports compared: totals, then one line for each field that differs in the same way."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    for change in difference.totals:
        grid.add_row(Text("total", "dim"), change.field, f"{change.before_text} → {change.after_text}")
    # The same change in every layer of a stage is one line.
    alike: dict[tuple[str, str, str], list[str]] = {}
    for change in difference.layers:
        key = (change.field, change.before_text, change.after_text)
        alike.setdefault(key, []).append(change.layer or "")
    for (field, old, new), names in alike.items():
        grid.add_row(Text(fold_names(names), "bold"), field, f"{old} → {new}")
    for label, missing in (("only in A", difference.only_before), ("only in B", difference.only_after)):
        if missing:
            grid.add_row(Text(fold_names(missing), "bold"), label, "")
    head = Text(f"A  {difference.before}\nB  {difference.after}\n", "bold")
    return Group(head, grid if difference else Text("no difference"))
