"""Rule sets joined into one: who comes later, and whose ids are taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from binarize.errors import RuleError
from binarize.rules.rule_set import Rule, RuleSet
from binarize.schemes.scheme import Scheme

__all__ = ["free_id", "join"]

# More rules than any file has, fewer than files that extend each other twice over can reach.
_MOST_RULES = 2000


def join(rule_sets: Iterable[RuleSet]) -> RuleSet:
    """One rule set after the other: later rules come later, later schemes and defaults replace earlier ones.

    An id that a later set has too gets its set's name in front: `adabin/body`.
    """
    name, paper, description = "", "", ""
    schemes: dict[str, Scheme] = {}
    defaults: dict[str, Any] = {}
    rules: list[Rule] = []
    for rule_set in rule_sets:
        taken = {rule.id for rule in rule_set.rules}
        earlier: list[Rule] = []
        for rule in rules:
            if rule.id in taken:
                rule = replace(rule, id=free_id(f"{name}/{rule.id}" if name else rule.id, taken))
            taken.add(rule.id)
            earlier.append(rule)
        rules = [*earlier, *rule_set.rules]
        if len(rules) > _MOST_RULES:
            raise RuleError(f"more than {_MOST_RULES} rules; do files extend each other many times over?")
        name, paper = rule_set.name or name, rule_set.paper or paper
        description = rule_set.description or description
        schemes |= rule_set.schemes
        defaults |= rule_set.defaults
    return RuleSet(name, schemes, tuple(rules), paper, description, defaults)


def free_id(id: str, taken: set[str]) -> str:
    """The id, with a number behind it where it is taken."""
    n = 2
    result = id
    while result in taken:
        result, n = f"{id}-{n}", n + 1
    return result
