"""The plan: one decision with a reason per layer, and the resolved edits. Pure data, the only truth after conversion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from binarize.analysis.layer import Layer
from binarize.errors import SourceError, UsageError, did_you_mean
from binarize.planning.advice import Hint, advise
from binarize.planning.decision import UNKNOWN_START, Decision
from binarize.planning.record.capture import Capture
from binarize.planning.record.edit import Edit
from binarize.planning.record.edit_kinds import edit_from_json
from binarize.planning.record.former import capture_of_words, former_scale_values
from binarize.rules.rule_set import Unmatched
from binarize.schemes.scheme import Scheme

__all__ = ["Decision", "Plan", "Unmatched", "decision_of", "former_hints", "plan_digest"]


@dataclass(frozen=True)
class Plan:
    """All decisions in execution order, and the edits that carry them out."""

    name: str
    source: str
    decisions: tuple[Decision, ...]
    edits: tuple[Edit, ...] = ()
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    unmatched: tuple[Unmatched, ...] = ()
    # Elements of the model outside the listed layers: BatchNorm and other float parameters, buffers.
    other_params: int = 0
    other_buffers: int = 0
    warnings: tuple[str, ...] = ()
    # What one might want to try.
    hints: tuple[Hint, ...] = ()
    # How the model was seen, and what was made of it since.
    capture: Capture = field(default_factory=Capture)

    def __getitem__(self, name: str) -> Decision:
        """The decision about one layer.

        Raises: UsageError with the nearest name, where there is no such layer.
        """
        for decision in self.decisions:
            if decision.layer.name == name:
                return decision
        names = [decision.layer.name for decision in self.decisions]
        raise UsageError(f'there is no layer "{name}" in the plan{did_you_mean(name, names)}')

    @property
    def binarized(self) -> tuple[Decision, ...]:
        """The decisions to binarize, in execution order."""
        return tuple(decision for decision in self.decisions if decision.binary)

    @property
    def complaints(self) -> list[str]:
        """What `strict` objects to: patterns that matched no layer, with the nearest names, and warnings."""
        return [*map(str, self.unmatched), *self.warnings]

    def to_json(self) -> dict[str, Any]:
        """The whole plan as JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "decisions": [asdict(decision) for decision in self.decisions],
            "edits": [edit.to_json() for edit in self.edits],
            "schemes": {name: scheme.to_json() for name, scheme in self.schemes.items()},
            "unmatched": [asdict(item) for item in self.unmatched],
            "other_params": self.other_params,
            "other_buffers": self.other_buffers,
            "warnings": list(self.warnings),
            "hints": [hint.to_json() for hint in self.hints],
            "capture": self.capture.to_json(),
        }

    @property
    def digest(self) -> str:
        """What files that were made of this plan know it by: of the form that it was written in."""
        return self.capture.written_as or plan_digest(self.to_json())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A pickle's way back; in those of earlier versions edits and capture were dictionaries."""
        self.__dict__.update(state)
        if not isinstance(self.capture, Capture):
            edits = tuple(edit_from_json(vars(edit)) for edit in self.edits)
            decisions = tuple(_with_scales(decision, self.schemes) for decision in self.decisions)
            capture, hints = capture_of_words(dict(self.capture)), former_hints(decisions, self.schemes)
            self.__dict__.update(edits=edits, decisions=decisions, capture=capture, hints=hints)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote.

        Raises: SourceError, where the data is no plan.
        """
        try:
            return cls(
                name=data["name"],
                source=data["source"],
                decisions=tuple(decision_of(item) for item in data["decisions"]),
                edits=tuple(map(edit_from_json, data["edits"])),
                schemes={name: Scheme.from_json(name, item) for name, item in data["schemes"].items()},
                unmatched=tuple(
                    Unmatched(**{**item, "nearest": tuple(item["nearest"])}) for item in data["unmatched"]
                ),
                other_params=data["other_params"],
                other_buffers=data["other_buffers"],
                warnings=tuple(data["warnings"]),
                hints=tuple(map(Hint.from_json, data["hints"])),
                capture=Capture.from_json(data["capture"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"not a plan: {type(error).__name__}: {error}") from error


def former_hints(decisions: Iterable[Decision], schemes: Mapping[str, Scheme]) -> tuple[Hint, ...]:
    """The hints of a plan that has none: of thresholds it said in words that nothing tells where they start."""
    decisions = tuple(decisions)
    unknown = tuple(d.layer.name for d in decisions if d.binary and d.threshold.endswith(UNKNOWN_START))
    return advise(decisions, schemes, unknown)


def decision_of(data: Mapping[str, Any]) -> Decision:
    """The decision that a plan holds as JSON values."""
    layer: dict[str, Any] = {
        key: tuple(value) if key in _TUPLES and isinstance(value, list) else value
        for key, value in data["layer"].items()
    }
    return Decision(**{**data, "layer": Layer(**layer)})


def plan_digest(data: Mapping[str, Any]) -> str:
    """sha256 of a plan as JSON values."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


_TUPLES = {f.name for f in fields(Layer) if "tuple" in str(f.type)}


def _with_scales(decision: Decision, schemes: Mapping[str, Scheme]) -> Decision:
    scheme = schemes.get(decision.scheme or "")
    weight = None if scheme is None or scheme.weight is None else scheme.weight.name
    return replace(decision, scale_values=former_scale_values(weight, decision.layer.out_channels))
