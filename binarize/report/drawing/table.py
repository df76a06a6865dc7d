"""The table of layers at a given width: which columns fit, and which layers share a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from binarize.report.data import Row
from binarize.report.names import fold, fold_names
from binarize.report.units import count, percent, shape, size
from binarize.report.words import decision_word, nearby
from binarize.shown_text import one_line

__all__ = ["GAP", "Column", "Layout", "Line", "layout", "layouts"]

# Cells between two columns.
GAP = 2
# A longer table is folded further, to lines of layers that differ in shape and numbers.
LONG = 40
# A set of differing texts is shown up to this length.
_SHORT = 24


@dataclass(frozen=True)
class Column:
    """One column: a text of each row, or a number, of which a line of several layers shows the range."""

    title: str
    # Columns come in while there is room, smallest rank first; rank 0 is always shown.
    rank: int
    text: Callable[[Row], str] | None = None
    number: Callable[[Row], float | None] | None = None
    write: Callable[[float], str] = count

    def cell(self, rows: Sequence[Row]) -> str:
        """What stands in a line for these layers; "-" for nothing."""
        if self.text is not None:
            texts = sorted({self.text(row) for row in rows})
            joined = fold_names(texts)
            if len(texts) > 1 and len(joined) > _SHORT:
                return "differs"
            return "-" if joined in ("none", "") else joined
        assert self.number is not None, "a column has a text or a number"
        numbers = [number for number in map(self.number, rows) if number is not None]
        if not numbers:
            return "-"
        low, high = self.write(min(numbers)), self.write(max(numbers))
        return low if low == high else f"{low} – {high}"


COLUMNS = (
    Column("layer", 0, lambda row: one_line(row.name)),
    Column("type", 9, lambda row: row.type),
    Column("in → out", 4, lambda row: f"{shape(row.in_shape)} → {shape(row.out_shape)}"),
    Column("decision", 0, decision_word),
    Column("rule", 0, lambda row: row.reason),
    Column("params", 8, number=lambda row: row.cost.params),
    Column("MACs", 1, number=lambda row: row.cost.macs),
    Column("BOPs", 11, number=lambda row: row.cost.bops or None),
    Column("float", 5, number=lambda row: row.cost.float_bytes, write=size),
    Column("packed", 2, number=lambda row: row.cost.packed_bytes, write=size),
    Column("latent", 13, number=lambda row: row.cost.latent_bytes, write=size),
    Column("int8", 14, number=lambda row: row.cost.int8_bytes, write=size),
    Column("shortcut", 3, lambda row: row.shortcut),
    Column("norm", 6, lambda row: nearby(row, row.norm)),
    Column("activation", 7, lambda row: nearby(row, row.activation)),
    Column("threshold", 10, lambda row: nearby(row, row.threshold)),
    Column("+1 in", 5, number=lambda row: row.live.share_plus if row.live else None, write=percent),
    Column("constant", 5, number=lambda row: row.live.constant_channels if row.live else None, write=percent),
    Column("why", 12, lambda row: row.why),
)


@dataclass(frozen=True)
class Line:
    """One line: its layers, and a text for each column of the layout."""

    rows: tuple[Row, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A table ready to be drawn. `folded`: whether lines stand for equal layers, or for similar ones."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    folded: Literal["no", "equal", "similar"]


def layout(rows: Sequence[Row], width: int, all_rows: bool = False) -> Layout:
    """The table of `rows` that fits into `width` cells, if its first columns do."""
    return layouts(rows, width, all_rows)[0]


def layouts(rows: Sequence[Row], width: int, all_rows: bool = False) -> list[Layout]:
    """The same; with `all_rows`, further tables with the columns that had no room in it follow."""
    groups, folded = _groups(rows, all_rows)
    table = []
    for name, members in groups:
        first = one_line(name) if len(members) == 1 else f"{one_line(name)} ×{len(members)}"
        table.append([first, *(column.cell(members) for column in COLUMNS[1:])])
    widths = [
        max(map(len, texts)) for texts in zip([column.title for column in COLUMNS], *table, strict=True)
    ]
    empty = {
        index
        for index, column in enumerate(COLUMNS)
        if column.rank and all(line[index] == "-" for line in table)
    }
    tables = [_chosen(widths, empty, width)]
    left = [index for index in range(len(COLUMNS)) if index not in {*tables[0], *empty}]
    while all_rows and left:
        tables.append([0, left.pop(0)])
        while left and sum(widths[index] + GAP for index in (*tables[-1], left[0])) - GAP <= width:
            tables[-1].append(left.pop(0))
    return [
        Layout(
            tuple(COLUMNS[index] for index in chosen),
            tuple(
                Line(members, tuple(line[index] for index in chosen))
                for (_, members), line in zip(groups, table, strict=True)
            ),
            folded,
        )
        for chosen in tables
    ]


def _chosen(widths: Sequence[int], empty: set[int], width: int) -> list[int]:
    """The columns that fit, in their order."""
    chosen = [index for index, column in enumerate(COLUMNS) if column.rank == 0]
    used = sum(widths[index] + GAP for index in chosen) - GAP
    for index in sorted(range(len(COLUMNS)), key=lambda index: COLUMNS[index].rank):
        if index in chosen or index in empty or used + widths[index] + GAP > width:
            continue
        used += widths[index] + GAP
        chosen.append(index)
    return sorted(chosen)


def _groups(
    rows: Sequence[Row], all_rows: bool
) -> tuple[list[tuple[str, tuple[Row, ...]]], Literal["no", "equal", "similar"]]:
    """Layers by line: those equal in every field; in a long table, those decided alike."""
    if all_rows:
        return [(row.name, (row,)) for row in rows], "no"
    names = [row.name for row in rows]
    folds, folded = fold(names, [_equal(row) for row in rows]), "equal"
    if len(folds) > LONG:
        folds, folded = fold(names, [_decided(row) for row in rows]), "similar"
    if len(folds) == len(rows):
        folded = "no"
    groups = [(item.name, tuple(rows[member] for member in item.members)) for item in folds]
    return groups, folded  # type: ignore[return-value]


def _decided(row: Row) -> Hashable:
    """What was decided, apart from indices in names beside the layer."""
    words = (re.sub(r"\d+", "#", nearby(row, text)) for text in (row.norm, row.activation, row.threshold))
    decision = (row.action, row.scheme, row.weights_only, row.why, row.reason, row.shortcut)
    return (row.type, row.kind, row.position, *decision, *words)


def _equal(row: Row) -> Hashable:
    """Everything but the name and what was measured."""
    return (_decided(row), row.in_shape, row.out_shape, row.shortcut_why, row.cost)
