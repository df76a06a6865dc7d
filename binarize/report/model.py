"""The report as data: one row a decision, totals, warnings, checks. Every other format is written from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from binarize.atomic import whole_file
from binarize.cost import LayerCost, Totals, layer_cost, totals
from binarize.errors import SourceError, way
from binarize.plan import UNKNOWN_START, Decision, Plan
from binarize.report.fold import fold_names
from binarize.report.live import LiveShare, MeasuredOn, complaints, finite
from binarize.report.training import Training
from binarize.scheme import Scheme

__all__ = [
    "CONVENTION",
    "SCHEMA_VERSION",
    "Agreement",
    "Check",
    "KeptGroup",
    "LiveShare",
    "Report",
    "Row",
    "Training",
    "UnmatchedPattern",
    "make_report",
]

SCHEMA_VERSION = 1
# Binary convolutions outside any skip from which on shortcuts pay: they brought nothing to 5, up to two points to 15
# (benchmarks/accuracy.py depth-*).
DEEP = 8
CONVENTION = (
    "MAC = one multiply and one add; FLOPs = MACs; OPs = FLOPs + BOPs / 64; norms, activations and adds "
    "are not counted. Sizes are parameters at 4 bytes a float, without buffers."
)


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


# What one should know of shares of +1 that were measured on these.
_NOISE: Mapping[MeasuredOn, str] = {
    "noise": "the shares of +1 were measured on an example input that looks like noise: they say little of real images",
    "made-up noise": "the shares of +1 were measured on made-up noise: they say little of real images",
}


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
class Report:
    """A whole conversion, as JSON values throughout. See `make_report`."""

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

    def to_markdown(self, path: str | Path | None = None) -> str:
        """The report as Markdown, also written to `path` where one is given."""
        from binarize.report.markdown import to_markdown

        return _written(to_markdown(self), path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one self-contained page, also written to `path`. Raises UsageError where jinja2 is missing."""
        from binarize.report.html import to_html

        return _written(to_html(self), path)

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return self.to_html() if find_spec("jinja2") is not None else None

    def __str__(self) -> str:
        from binarize.report.terminal import to_text

        return to_text(self)

    def __rich__(self) -> object:
        from binarize.report.terminal import render

        return render(self)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, as `schema.json` describes them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"schema": values.pop("schema"), **values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
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


def make_report(
    plan: Plan,
    *,
    live: Mapping[str, LiveShare] | None = None,
    measured_on: MeasuredOn = "nothing",
    agreement: Agreement | None = None,
    checks: Sequence[Check] = (),
    files: Mapping[str, int] | None = None,
    command: str | None = None,
    next_commands: Sequence[str] = (),
) -> Report:
    """The report on a plan, and on its conversion as far as that has been measured.

    `live` holds what binary layers read of the example, by layer name, and `measured_on` what that was: where it was
    noise, no layer is called dead. `files` holds the bytes of each file.
    """
    rows = tuple(
        _row(
            decision,
            plan.schemes.get(decision.scheme or ""),
            (live or {}).get(decision.layer.name),
            judged=measured_on not in _NOISE,
        )
        for decision in plan.decisions
    )
    capture = plan.capture
    return Report(
        name=plan.name,
        source=plan.source,
        rows=rows,
        totals=totals(plan.decisions, plan.other_params, plan.other_buffers, plan.schemes),
        first=tuple(row.name for row in rows if row.position == "first"),
        last=tuple(row.name for row in rows if row.position == "last"),
        shortcuts=dict(Counter(row.shortcut for row in rows if row.shortcut != "none")),
        norms_added=sum(row.norm.startswith("added") for row in rows),
        kept=_kept(rows),
        unmatched=tuple(
            UnmatchedPattern(item.rule, item.where, item.selector, item.pattern, tuple(item.nearest))
            for item in plan.unmatched
        ),
        capture=str(capture.get("level", "")),
        capture_notes=(
            *capture.get("notes", ()),
            *(f"{path or 'the model'}: {why}" for path, why in capture.get("containers", {}).items()),
        ),
        checks=tuple(checks),
        agreement=agreement if agreement and isfinite(agreement.same_top1) else None,
        warnings=(*plan.warnings, *_dead_inputs(rows)),
        hints=(*_hints(plan), *([_noise(measured_on)] if live and measured_on in _NOISE else [])),
        next_commands=tuple(next_commands),
        files=dict(files or {}),
        source_notes=tuple(capture.get("source", ())),
        measured_on=measured_on if live else "nothing",
        command=command,
    )


def _row(decision: Decision, scheme: Scheme | None, live: LiveShare | None, judged: bool) -> Row:
    layer = decision.layer
    return Row(
        name=layer.name,
        type=layer.type,
        kind=layer.kind,
        position=layer.position,
        in_shape=layer.in_shape,
        out_shape=layer.out_shape,
        action=decision.action,
        scheme=decision.scheme,
        weights_only=decision.weights_only,
        why=decision.why,
        rule=decision.rule,
        where=decision.where,
        guard=decision.guard,
        shortcut=decision.shortcut,
        shortcut_why=decision.shortcut_why,
        norm=decision.norm,
        activation=decision.activation,
        threshold=decision.threshold,
        cost=layer_cost(decision, scheme),
        live=finite(live),
        warnings=complaints(live) if judged else (),
    )


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        with whole_file(Path(path), follow=True) as draft:
            draft.write_text(text, "utf-8")
    return text


def _noise(measured_on: MeasuredOn) -> str:
    if measured_on != "made-up noise":
        return _NOISE[measured_on]
    return f"{_NOISE[measured_on]}; {way('--calibrate DATA', 'example_input=images')} takes real ones"


def _hints(plan: Plan) -> tuple[str, ...]:
    """What images, or another choice of shortcuts, would do for this model."""
    binary = [decision for decision in plan.decisions if decision.binary]
    return (*_unknown(binary), *_unasked(plan, binary), *_pointless(plan, binary))


def _unknown(binary: Sequence[Decision]) -> tuple[str, ...]:
    """Inputs that never change sign, of which nothing tells the mean before an image was seen."""
    names = [item.layer.name for item in binary if item.threshold.endswith(UNKNOWN_START)]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"{names[0]}{more}: nothing tells where the values of the input lie, so the threshold is {UNKNOWN_START}: "
        "--calibrate DATA, or finetune, which sets it from training images",
    )


def _unasked(plan: Plan, binary: Sequence[Decision]) -> tuple[str, ...]:
    """Signs of signs lose what a float network carries from layer to layer: the more layers, the more."""
    never = {name for name, s in plan.schemes.items() if s.shortcut == "never" and s.input is not None}
    plain = [d for d in binary if d.scheme in never and d.layer.skip == "none" and d.layer.kind == "conv"]
    if len(plain) < DEEP or any(item.shortcut != "none" for item in binary):
        return ()
    return (
        f"{len(plain)} binary convolutions have no skip around them; in plain networks this deep shortcuts bring "
        "accuracy: --add-shortcuts",
    )


def _pointless(plan: Plan, binary: Sequence[Decision]) -> tuple[str, ...]:
    """`missing` finds nothing to do where the architecture has skips of its own: say what would."""
    missing = {name for name, scheme in plan.schemes.items() if scheme.shortcut == "missing"}
    asked = [item for item in binary if item.scheme in missing]
    if not asked or any(item.shortcut != "none" for item in asked):
        return ()
    if not all(item.layer.skip != "none" for item in asked):
        return ()
    return (
        "no shortcut was missing: every binary layer stands inside a skip already; --shortcuts every gives "
        "each one its own, as Bi-Real Net does",
    )


def _dead_inputs(rows: Sequence[Row]) -> tuple[str, ...]:
    """One warning for all layers whose input says next to nothing, with the remedy."""
    dead = [row for row in rows if row.warnings]
    if not dead:
        return ()
    others = f" (and the like in {fold_names([row.name for row in dead[1:]])})" if len(dead) > 1 else ""
    return (
        f"{dead[0].name}: {' and '.join(dead[0].warnings)}{others}; calibrate on real images, or keep it "
        f'float (--keep "{dead[0].name}")',
    )


def _kept(rows: Sequence[Row]) -> tuple[KeptGroup, ...]:
    """Float layers grouped by reason, in execution order of their first layer."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.binary:
            groups.setdefault((row.why, row.reason), []).append(row)
    return tuple(
        KeptGroup(
            why=why,
            reason=reason,
            layers=tuple(row.name for row in members),
            params=sum(row.cost.params for row in members),
            macs=sum(row.cost.macs for row in members),
        )
        for (why, reason), members in groups.items()
    )
