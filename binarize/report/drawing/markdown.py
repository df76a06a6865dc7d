"""The report as Markdown: every layer in a table, for a repository or a model card."""

from __future__ import annotations

from collections.abc import Sequence

from binarize.report.data import ReportData, Row
from binarize.report.units import count, percent, shape, size
from binarize.report.words import closing, decision_word, facts, headline, nearby, notices
from binarize.shown_text import one_line, shown

__all__ = ["to_markdown"]

_HEADER = (
    *("layer", "type", "in → out", "decision", "rule", "why", "params", "MACs", "BOPs"),
    *("float", "latent", "int8", "packed", "shortcut", "norm", "activation", "threshold"),
)
_LIVE = ("+1 at input", "constant channels")
_NUMBERS = {"params", "MACs", "BOPs", "float", "latent", "int8", "packed", *_LIVE}


def to_markdown(report: ReportData) -> str:
    """The whole report in GitHub's Markdown, ending with a newline."""
    measured = any(row.live for row in report.rows)
    header = _HEADER + (_LIVE if measured else ())
    lines = [f"# {_plain(report.name)} on {_plain(report.source)}", "", f"**{_plain(headline(report))}**", ""]
    lines += [f"- {_plain(sentence)}" for sentence in closing(report)] + [""]
    lines += [f"- **{label}** {_plain(sentence)}" for label, sentence in (*facts(report), *notices(report))]
    lines += ["", "## Layers", "", _line(header)]
    lines.append(_line(["---:" if title in _NUMBERS else "---" for title in header]))
    lines += [_line(_cells(row, measured)) for row in report.rows]
    if report.command:
        lines += ["", "## Command", "", *(f"    {shown(line)}" for line in report.command.splitlines())]
    return "\n".join(lines) + "\n"


def _cells(row: Row, measured: bool) -> list[str]:
    cost = row.cost
    cells = [
        _name(row.name),
        row.type,
        f"{shape(row.in_shape)} → {shape(row.out_shape)}",
        decision_word(row),
        row.reason,
        row.why,
        f"{cost.params:,}",
        count(cost.macs),
        count(cost.bops),
        *(
            size(number)
            for number in (cost.float_bytes, cost.latent_bytes, cost.int8_bytes, cost.packed_bytes)
        ),
        row.shortcut if row.shortcut != "none" or not row.shortcut_why else f"none: {row.shortcut_why}",
        nearby(row, row.norm),
        nearby(row, row.activation),
        nearby(row, row.threshold),
    ]
    if measured:
        live = row.live
        cells += [percent(live.share_plus), percent(live.constant_channels)] if live else ["", ""]
    return [cells[0], *map(_plain, cells[1:])]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: patterns hold stars, types hold underscores."""
    for mark in "\\*_<>[]|`&~":
        text = text.replace(mark, "\\" + mark)
    return shown(" ".join(text.split()))


def _name(text: str) -> str:
    """A name as code, where nothing in it could end the code or the cell."""
    plain = one_line(text)
    return f"`{plain}`" if plain and not set(plain) & set("`|\\") else _plain(plain)
