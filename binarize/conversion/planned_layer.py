"""One layer of a planned conversion: its decision, and the two ways to change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from binarize.planning.plan import Decision, Plan
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet

__all__ = ["PlannedLayer"]


class Changeable(Protocol):
    """A conversion whose rules can still be changed."""

    rules: RuleSet

    @property
    def plan(self) -> Plan:
        """The plan as the rules are now."""

    def add_rule(self, rule: Rule) -> None:
        """Append a rule: it decides the layers that it matches."""


class PlannedLayer:
    """One layer of a plan: its decision, and the two ways to change it."""

    def __init__(self, planned: Changeable, name: str) -> None:
        self._planned = planned
        self.name = name

    @property
    def decision(self) -> Decision:
        """The decision as the rules are now."""
        return self._planned.plan[self.name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.decision, name)

    def keep(self, why: str) -> None:
        """Leave this layer float."""
        self._append(load_rule_set(None, None, keep=[self.name]), why)

    def binarize(self, scheme: str | None = None, why: str = "asked for") -> None:
        """Binarize this layer (with another scheme, if one is named)."""
        rules = load_rule_set(scheme or self._planned.rules.name, None, binarize=[self.name])
        missing = {
            name: item for name, item in rules.schemes.items() if name not in self._planned.rules.schemes
        }
        if missing:
            schemes = {**self._planned.rules.schemes, **missing}
            self._planned.rules = replace(self._planned.rules, schemes=schemes)
        self._append(rules, why)

    def _append(self, rules: RuleSet, why: str) -> None:
        self._planned.add_rule(replace(rules.rules[-1], why=why, where="the plan"))

    def __repr__(self) -> str:
        return f"<{self.name}: {self.decision.action}, {self.decision.why}>"
