"""Rule files and what they say: read, checked, matched, bound to the layers of a model."""

from __future__ import annotations

from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet, Unmatched
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

__all__ = ["Part", "Rule", "RuleSet", "Scheme", "Unmatched", "builtin_rule_sets", "load_rule_set"]
