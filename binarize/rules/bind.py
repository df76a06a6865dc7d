"""A rule set bound to the layers of one model: names in place of what only all layers together tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from binarize.analysis.layer import Layer
from binarize.errors import RuleError
from binarize.rules.files import find_scheme
from binarize.rules.match import name_counted, named
from binarize.rules.rule_set import Rule, RuleSet
from binarize.schemes.scheme import Scheme

__all__ = ["bind"]


def bind(rule_set: RuleSet, layers: Sequence[Layer]) -> RuleSet:
    """The same rules with names in place of counts and functions.

    `first: 3` and `last: 2` become the names of those layers; a function is asked for each layer. Rules
    without either stay as they are.

    Raises: RuleError, where a function gives something else than an action, a rule or None.
    """
    rules: list[Rule] = []
    schemes = dict(rule_set.schemes)
    for rule in rule_set.rules:
        if rule.function is not None:
            rules += _ask(rule, layers, schemes)
        elif rule.unbound:
            rules.append(replace(rule, match=name_counted(rule.match, layers)))
        else:
            rules.append(rule)
    return replace(rule_set, rules=tuple(rules), schemes=schemes)


def _ask(rule: Rule, layers: Sequence[Layer], schemes: dict[str, Scheme]) -> list[Rule]:
    """What a function says about each layer, as rules with names; schemes that it names are added."""
    assert rule.function is not None
    answers: list[tuple[Rule, list[str]]] = []
    for layer in layers:
        answer = rule.function(layer)
        if answer is None:
            continue
        if not isinstance(answer, (str, Rule)):
            text = f"gave {answer!r} for {layer.name}; expected keep, the name of a scheme, a Rule or None"
            raise RuleError(f"{rule.where} {text}")
        given = replace(rule, use=answer, function=None) if isinstance(answer, str) else answer
        for known, names in answers:
            if known == given:
                names.append(layer.name)
                break
        else:
            answers.append((given, [layer.name]))
        if given.scheme is not None and given.scheme not in schemes:
            schemes[given.scheme] = find_scheme(given.scheme, rule.where)
    rules = []
    for i, (given, names) in enumerate(answers, start=1):
        id_ = rule.id if len(answers) == 1 else f"{rule.id}-{i}"
        # The match of a rule is of no interest: the function has said that it means these layers.
        match = {"name": named(names, layers)}
        shortcut = given.shortcut if given.use == "keep" else rule.shortcut or given.shortcut
        rules.append(replace(given, id=id_, match=match, shortcut=shortcut, where=rule.where))
    return rules
