"""A conversion's report: made of its plan, and drawn in every form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from binarize.disk.atomic import whole_file
from binarize.planning.cost import layer_cost, totals
from binarize.planning.plan import Decision, Plan
from binarize.report.data import Agreement, Check, KeptGroup, ReportData, Row, UnmatchedPattern
from binarize.report.drawing.html import to_html
from binarize.report.drawing.markdown import to_markdown
from binarize.report.hints import NOISE, dead_inputs, hints_of, noise_hint
from binarize.report.live import LiveShare, MeasuredOn, complaints, finite
from binarize.schemes.scheme import Scheme

__all__ = ["Report", "make_report"]


@dataclass(frozen=True)
class Report(ReportData):
    """A whole conversion, as JSON values throughout. See `make_report`."""

    def to_markdown(self, path: str | Path | None = None) -> str:
        """The report as Markdown, also written to `path` where one is given."""
        return _written(to_markdown(self), path)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one self-contained page, also written to `path`. Raises UsageError where jinja2 is missing."""
        return _written(to_html(self), path)

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return self.to_html() if find_spec("jinja2") is not None else None

    def __str__(self) -> str:
        from binarize.report.drawing.terminal import to_text

        return to_text(self)

    def __rich__(self) -> object:
        from binarize.report.drawing.terminal import render

        return render(self)


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
            judged=measured_on not in NOISE,
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
        capture=capture.level.value,
        capture_notes=(
            *capture.notes,
            *(f"{item.container or 'the model'}: {item.why}" for item in capture.refused),
        ),
        checks=tuple(checks),
        agreement=agreement if agreement and isfinite(agreement.same_top1) else None,
        warnings=(*plan.warnings, *dead_inputs(rows, measured_on)),
        hints=(*hints_of(plan), *([noise_hint(measured_on)] if live and measured_on in NOISE else [])),
        next_commands=tuple(next_commands),
        files=dict(files or {}),
        source_notes=capture.source_notes,
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
