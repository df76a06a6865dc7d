"""The report as data: one row a decision, totals, warnings, checks. Every other format is written from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from binarize.errors import SourceError
from binarize.planning.cost import LayerCost, Totals
from binarize.report.live import LiveShare, MeasuredOn
from binarize.report.training import Training

__all__ = [
    "CONVENTION",
    "SCHEMA_VERSION",
    "Agreement",
    "Check",
    "KeptGroup",
    "ReportData",
    "Row",
    "UnmatchedPattern",
]

SCHEMA_VERSION = 1
CONVENTION = (
    "MAC = one multiply and one add; FLOPs = MACs; OPs = FLOPs + BOPs / 64; norms, activations and adds "
    "are not counted. Sizes are parameters at 4 bytes a float, without buffers."
)

Self = TypeVar("Self", bound="ReportData")


@dataclass(frozen=True)
class Agreement:
    """The converted model beside the float model on the same images: share of equal top classes."""

    same_top1: float
    images: int
    # Whether the model was fitted to these very images; others agree less.
    fitted: bool = False


@dataclass(frozen=True)
class Check:
    """One self-check of the conversion."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class KeptGroup:
    """Layers that stay float for the same reason."""

    why: str
    # "first @ adabin.yaml:12", "guard over body", or "no rule".
    reason: str
    layers: tuple[str, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class UnmatchedPattern:
    """A rule's pattern that no layer answers to, and the names that come nearest."""

    rule: str
    # "my.yaml:12".
    where: str
    # "name", or another selector that takes patterns.
    selector: str
    pattern: str
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One layer: what it is, what was decided and why, what changed around it, and what it costs."""

    name: str
    type: str
    kind: str
    position: str
    # With the batch of the example.
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    action: Literal["binarize", "keep"]
    scheme: str | None
    weights_only: bool
    why: str
    rule: str | None
    where: str | None
    guard: str | None
    shortcut: str
    shortcut_why: str
    norm: str
    activation: str
    threshold: str
    cost: LayerCost
    live: LiveShare | None = None
    warnings: tuple[str, ...] = ()

    @property
    def binary(self) -> bool:
        """Whether the layer's weights are binarized."""
        return self.action == "binarize"

    @property
    def reason(self) -> str:
        """What decided: "first @ adabin.yaml:12", "guard over body" (`why` says which), or "no rule"."""
        if self.guard:
            return f"guard over {self.rule}"
        if self.rule is None:
            return "no rule"
        return f"{self.rule} @ {self.where}" if self.where else self.rule


@dataclass(frozen=True)
class ReportData:
    """What a report holds, without what draws it."""

    # Name of the rule set, and of what was converted.
    name: str
    source: str
    rows: tuple[Row, ...]
    totals: Totals
    first: tuple[str, ...]
    last: tuple[str, ...]
    # How many shortcuts of each kind; "block" is a block's own shortcut, led around its first layer alone.
    shortcuts: Mapping[str, int]
    norms_added: int
    kept: tuple[KeptGroup, ...]
    unmatched: tuple[UnmatchedPattern, ...]
    # How the model's graph was seen ("meta", "device", "walk"), and what of it could not be edited, and why.
    capture: str
    capture_notes: tuple[str, ...]
    checks: tuple[Check, ...]
    agreement: Agreement | None
    warnings: tuple[str, ...]
    # What one might want to try, where nothing is wrong.
    hints: tuple[str, ...]
    next_commands: tuple[str, ...]
    # Bytes on disk of each file written.
    files: Mapping[str, int]
    # What was found out about the source: which architecture a state dict is of, which weights of a file were taken.
    source_notes: tuple[str, ...] = ()
    # What the shares of +1 were measured on.
    measured_on: MeasuredOn = "nothing"
    # The last training since the conversion.
    training: Training | None = None
    command: str | None = None
    convention: str = CONVENTION
    schema: int = SCHEMA_VERSION

    @property
    def passed(self) -> bool:
        """Whether no self-check failed; true also if none was made."""
        return all(check.passed for check in self.checks)

    def row(self, name: str) -> Row:
        """The row of one layer. Raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, as `schema.json` describes them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"schema": values.pop("schema"), **values}

    @classmethod
    def from_json(cls: type[Self], data: Mapping[str, Any]) -> Self:
        """The report that `to_json` wrote. Raises SourceError on another form or version."""
        from pydantic import TypeAdapter, ValidationError

        version = data.get("schema")
        if version != SCHEMA_VERSION:
            raise SourceError(f"report: schema version {version!r} found, {SCHEMA_VERSION} expected")
        try:
            return TypeAdapter(cls).validate_python(dict(data))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise SourceError(f"report: {where}: {first['msg']}") from error
