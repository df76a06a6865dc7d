"""The report as one self-contained HTML file: a strip of layers, bars of sizes, every number in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from binarize.errors import UsageError
from binarize.report.data import ReportData, Row
from binarize.report.units import count, percent, shape, size
from binarize.report.words import closing, decision_word, facts, headline, nearby, notices
from binarize.shown_text import shown

__all__ = ["Block", "SizeBar", "size_bars", "strip", "to_html"]

STRIP_WIDTH = 1000.0
# Layers of few MACs stay visible; they take their width from the large ones.
MIN_BLOCK = 1.5
MAX_ARC, MIN_ARC = 34.0, 8.0


@dataclass(frozen=True)
class Block:
    """One layer of the strip: x and width, and the height of the shortcut's arc over it, or 0."""

    row: Row
    x: float
    width: float
    arc: float


@dataclass(frozen=True)
class SizeBar:
    """One form of the model, its bytes, and how they divide: (class of the drawing, label, bytes)."""

    label: str
    total: int
    parts: tuple[tuple[str, str, int], ...]


def to_html(report: ReportData) -> str:
    """The whole page. Raises UsageError where jinja2 is not installed."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UsageError(
            "the HTML report needs jinja2, which is not installed; "
            "try: pip install 'torch-binarize[report]', or ask for the formats term, json and md alone"
        ) from error

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Text that is markup already is a class of its own.
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    environment.filters.update(count=count, percent=percent, shape=shape, size=size, word=decision_word)
    environment.globals.update(nearby=nearby)
    template = environment.from_string(Path(__file__).with_name("template.html").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        blocks=strip(report.rows),
        bars=size_bars(report),
        headline=headline(report),
        facts=facts(report),
        notices=notices(report),
        closing=closing(report),
        measured=any(row.live for row in report.rows),
        strip_width=STRIP_WIDTH,
    )


def strip(rows: Sequence[Row]) -> tuple[Block, ...]:
    """Layers side by side in execution order, widths in proportion to their MACs, together STRIP_WIDTH."""
    total = sum(row.cost.macs for row in rows)
    least = min(MIN_BLOCK, STRIP_WIDTH / max(len(rows), 1))
    wanted = [max(STRIP_WIDTH * row.cost.macs / total, least) if total else 1.0 for row in rows]
    scale = STRIP_WIDTH / sum(wanted) if wanted else 1.0
    blocks, x = [], 0.0
    for row, width in zip(rows, wanted, strict=True):
        width *= scale
        arc = min(MAX_ARC, max(MIN_ARC, width / 2)) if row.shortcut != "none" else 0.0
        blocks.append(Block(row, round(x, 2), round(width, 2), round(arc, 2)))
        x += width
    return tuple(blocks)


def size_bars(report: ReportData) -> tuple[SizeBar, ...]:
    """The model as float, in training, at one byte a binary weight, and packed; each bar in three parts."""
    outside = 4 * report.totals.other_params
    bars = []
    for label, name in (
        ("float", "float_bytes"),
        ("in training", "latent_bytes"),
        ("one byte a weight", "int8_bytes"),
        ("packed", "packed_bytes"),
    ):
        binary = sum(getattr(row.cost, name) for row in report.rows if row.binary)
        kept = sum(getattr(row.cost, name) for row in report.rows if not row.binary)
        parts = (
            ("binary", "binarized layers", binary),
            ("kept", "float layers", kept),
            ("outside", "other parameters", outside),
        )
        bars.append(SizeBar(label, binary + kept + outside, parts))
    return tuple(bars)
