"""What two reports say differently: `binarize report A B`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from binarize.report.data import ReportData, Row
from binarize.report.units import count, percent, size

__all__ = ["Change", "Difference", "diff"]

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Change:
    """One value that differs. `layer` is None for a total."""

    layer: str | None
    field: str
    before: Value
    after: Value

    @property
    def before_text(self) -> str:
        """`before` as the report writes it."""
        return _written(self.field, self.before)

    @property
    def after_text(self) -> str:
        """`after` as the report writes it."""
        return _written(self.field, self.after)


@dataclass(frozen=True)
class Difference:
    """The second report seen from the first."""

    before: str
    after: str
    totals: tuple[Change, ...]
    layers: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.totals or self.layers or self.only_before or self.only_after)

    def to_json(self) -> dict[str, Any]:
        """The difference as JSON values."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def diff(before: ReportData, after: ReportData) -> Difference:
    """Every total and every field of a layer that is in both reports and differs, in execution order.

    Layers are matched by name. Rules' file lines are left out: moving a rule changes no decision.
    """
    old, new = {row.name: row for row in before.rows}, {row.name: row for row in after.rows}
    layers: list[Change] = []
    for name, row in old.items():
        if name in new:
            layers += _changes(name, _fields(row), _fields(new[name]))
    return Difference(
        before=f"{before.name} on {before.source}",
        after=f"{after.name} on {after.source}",
        totals=tuple(_changes(None, asdict(before.totals), asdict(after.totals))),
        layers=tuple(layers),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
    )


def _changes(layer: str | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for field, value in old.items():
        if value != new[field]:
            yield Change(layer, field, value, new[field])


def _fields(row: Row) -> dict[str, Any]:
    """The fields of a row in one level, shapes as text."""
    values = asdict(row)
    values |= values.pop("cost")
    live = values.pop("live") or {"share_plus": None, "constant_channels": None}
    values |= live
    for key in ("name", "where", "warnings"):
        del values[key]
    return {key: str(value) if isinstance(value, list | tuple) else value for key, value in values.items()}


def _written(field: str, value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    if field.endswith("_bytes"):
        return size(value)
    if field in ("binary_share", "share_plus", "constant_channels"):
        return percent(value)
    if field == "compression":
        return f"{value:.1f}x"
    return count(value)
