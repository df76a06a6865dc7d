"""Rule files and what they say: read, checked, matched, bound to the layers of a model.

bind.py          a rule set bound to the layers of one model
files.py         finding rule files, and the rule set of one and of what it extends
join.py          rule sets joined into one
load.py          rules decide: an ordered list
match.py         whether a rule's `match` holds for a layer
name_pattern.py  patterns for dotted names
rule_set.py      rules and rule sets: who decides about a layer, and as what they are written down
schema.py        what mappings in a rule file may hold
text.py          rule text -> a document of plain data, and plain data -> text
values.py        what single values in a rule file may be: words, numbers, patterns, parts
yaml/            YAML text as plain data that remembers its places
"""

from __future__ import annotations

from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet, Unmatched
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

__all__ = ["Part", "Rule", "RuleSet", "Scheme", "Unmatched", "builtin_rule_sets", "load_rule_set"]
