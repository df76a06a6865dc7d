"""Rules decide: an ordered list, the last one that matches a layer decides, and replaces the whole decision.

Example:
    >>> rules = load_rule_set("adabin", keep=["layer4"])
    >>> rules.decide(layer).use
    'keep'

This file joins all that one conversion was given: schemes, files, and what the command line adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from binarize.errors import RuleError, UsageError, did_you_mean
from binarize.rules.files import Loader, builtin_rule_sets, find_scheme, shipped_rule_set
from binarize.rules.join import join
from binarize.rules.name_pattern import pattern
from binarize.rules.rule_set import Rule, RuleSet, make_rule
from binarize.rules.schema import RULE_KEYS, check_rule
from binarize.rules.text import RuleText, parse_value, plain
from binarize.rules.yaml.document import Document
from binarize.schemes.part import foreign_modules
from binarize.schemes.scheme import Shortcut
from binarize.trust import trusting

__all__ = ["DEFAULT_SCHEME", "Source", "load_rule_set"]

DEFAULT_SCHEME = "adabin"

# What --set may change; an id is what it goes by.
_FIELDS = [key for key in RULE_KEYS if key != "id"]

Source = str | Path | Mapping[str, Any] | RuleText | RuleSet | Rule | Callable[..., object]


def load_rule_set(
    scheme: str | None = None,
    rules: Source | Sequence[Source] | None = None,
    *,
    keep: Sequence[str] = (),
    binarize: Sequence[str] = (),
    overrides: Sequence[str] = (),
    shortcuts: str | None = None,
    keep_first: int = 1,
    keep_last: int = 1,
) -> RuleSet:
    """The rule set of one conversion: the scheme's rules, then `rules`, then what the other arguments add.

    `rules` is the name of a shipped rule set, the path of a file, a mapping as in a file, a `RuleText`, a
    `Rule` or a mapping of one, a function `(Layer) -> "keep" | scheme | Rule | None`, or a list of these.
    Without a scheme, rules that only keep layers come after those of AdaBin.

    `keep` and `binarize` are names or patterns. `keep_first` and `keep_last` are how many layers at either
    end stay float: 1 is what the rules say, 0 drops the rules that keep them. `shortcuts` overrides what
    schemes and rules say. `overrides` are "id.field=value" with a YAML value.

    A rule set with a function, or with a count above 1, needs `bind` before it decides.

    Raises RuleError with file, line and column where a rule is wrong; UsageError where arguments contradict.
    """
    loader = Loader()
    given = [_load(source, loader) for source in _sources(rules)]
    others = sorted(loader.shipped - {scheme})
    if scheme is not None and scheme not in loader.shipped:
        if others:
            later = ", ".join(others)
            text = f'rules that extend "{later}" come after those of the scheme "{scheme}" and would decide'
            raise UsageError(f"{text} in its place; give one of the two")
        given.insert(0, shipped_rule_set(_known_scheme(scheme)))
    elif scheme is None and not any(map(_binarizes, given)):
        given.insert(0, shipped_rule_set(DEFAULT_SCHEME))
    result = join(given)
    result = replace(result, name=result.name or "rules")
    result = _keep_ends(result, keep_first, keep_last)
    result = _add_names(result, keep, binarize)
    if shortcuts is not None:
        result = _override_shortcuts(result, shortcuts)
    for text in overrides:
        result = _override(result, text)
    return result


def _binarizes(rule_set: RuleSet) -> bool:
    """Whether it defines or uses a scheme, or asks a function that may."""
    return bool(rule_set.schemes) or any(rule.use != "keep" for rule in rule_set.rules)


def _known_scheme(name: str) -> str:
    if name not in builtin_rule_sets():
        near = did_you_mean(name, builtin_rule_sets())
        raise RuleError(f'there is no scheme "{name}"{near or "; a file is given as rules"}')
    return name


def _sources(rules: Source | Sequence[Source] | None) -> Iterable[Source | list[Rule | Mapping[str, Any]]]:
    """The rule sets given, in order; single rules that follow each other are one set."""
    if rules is None:
        return
    if isinstance(rules, (str, Mapping)) or not isinstance(rules, Sequence):
        rules = [rules]
    run: list[Rule | Mapping[str, Any]] = []
    for source in rules:
        if isinstance(source, Rule) or (isinstance(source, Mapping) and {"match", "use"} & source.keys()):
            run.append(source)
            continue
        if run:
            yield run
            run = []
        yield source
    if run:
        yield run


def _load(source: Source | list[Rule | Mapping[str, Any]], loader: Loader) -> RuleSet:
    if isinstance(source, RuleSet):
        return source
    if isinstance(source, list):
        source = {"rules": [one.to_json() if isinstance(one, Rule) else one for one in source]}
    if isinstance(source, (str, Path, RuleText)):
        return loader.load(source)
    if isinstance(source, Mapping):
        # Whoever gives a mapping names the parts in it; whoever gives a file did not write it in this call.
        with trusting(*foreign_modules(source)):
            return loader.load(source)
    if callable(source):
        return _asking(source)
    expected = "a name, a path, a mapping, a rule, a function, or a list of these"
    raise UsageError(f"rules is {source!r}; expected {expected}")


def _asking(function: Callable[..., object]) -> RuleSet:
    """A rule set that asks a function."""
    name = getattr(function, "__name__", type(function).__name__)
    id_ = "function" if name == "<lambda>" else name
    rule = Rule(
        {"name": "**"}, "function", id=id_, function=function, where=f"function {name}", optional=True
    )
    return RuleSet("", {}, (rule,))


def _keep_ends(rule_set: RuleSet, keep_first: int, keep_last: int) -> RuleSet:
    """Drops the rules that keep an end (0), or adds one that keeps more than one layer there."""
    added: list[Rule] = []
    for end, n in (("first", keep_first), ("last", keep_last)):
        if n < 0:
            raise UsageError(f"keep_{end} is {n}; expected 0 or more")
        if n == 0:
            kept = [_without_position(rule, end) for rule in rule_set.rules]
            rule_set = replace(rule_set, rules=tuple(rule for rule in kept if rule is not None))
        if n > 1:
            why = f"one of the {end} {n} layers"
            added.append(Rule({end: n}, "keep", id=f"keep-{end}", why=why, where=f"--keep-{end} {n}"))
    return _after(rule_set, added)


def _without_position(rule: Rule, end: str) -> Rule | None:
    """The rule without its claim on one end of the network; None where it claimed nothing else."""
    if rule.use != "keep" or rule.match.keys() != {"position"}:
        return rule
    left = [word for word in rule.match["position"] if word != end]
    return replace(rule, match={"position": left}) if left else None


def _add_names(rule_set: RuleSet, keep: Sequence[str], binarize: Sequence[str]) -> RuleSet:
    main = rule_set.main_use or DEFAULT_SCHEME
    added = []
    for option, use, texts in (("binarize", main, binarize), ("keep", "keep", keep)):
        for i, text in enumerate(texts, start=1):
            where = f"--{option} {text}"
            try:
                pattern(text)
            except ValueError as error:
                raise RuleError(f"{where}: {error}") from None
            added.append(Rule({"name": text}, use, id=f"{option}-{i}", why="asked for by name", where=where))
    return _after(rule_set, added)


def _after(rule_set: RuleSet, rules: Sequence[Rule]) -> RuleSet:
    """The rule set with rules at its end, and with the schemes they use."""
    new = {rule.scheme: rule.where for rule in rules if rule.scheme and rule.scheme not in rule_set.schemes}
    schemes = {name: find_scheme(name, where) for name, where in new.items()}
    return join([rule_set, RuleSet("", schemes, tuple(rules))])


def _override_shortcuts(rule_set: RuleSet, shortcuts: str) -> RuleSet:
    if shortcuts not in get_args(Shortcut):
        choices = get_args(Shortcut)
        near = did_you_mean(shortcuts, choices)
        raise UsageError(f'shortcuts is "{shortcuts}"; expected one of {", ".join(choices)}{near}')
    changed = (
        r if r.use == "keep" else replace(r, shortcut=cast(Shortcut, shortcuts)) for r in rule_set.rules
    )
    return replace(rule_set, rules=tuple(changed))


def _override(rule_set: RuleSet, text: str) -> RuleSet:
    """The rule set after "id.field=value" or "id.with.input.form=value"; an empty value removes the field."""
    where = f"--set {text}"
    address, equals, value = text.partition("=")
    id_, *path = address.split(".")
    if not equals or not path or not all(path):
        raise RuleError(f"{where}: expected id.field=value, such as first.use=keep")
    ids = [rule.id for rule in rule_set.rules]
    if id_ not in ids:
        raise RuleError(f'{where}: there is no rule "{id_}"{did_you_mean(id_, ids)}')
    if path[0] not in _FIELDS:
        raise RuleError(f'{where}: rules have no field "{path[0]}"{did_you_mean(path[0], _FIELDS)}')
    rule = rule_set.rules[ids.index(id_)]
    if rule.function is not None:
        raise RuleError(f"{where}: {rule.where} has no fields")
    data = rule.to_json()
    inner = data
    for key in path[:-1]:
        inner[key] = dict(inner[key]) if isinstance(inner.get(key), Mapping) else {}
        inner = inner[key]
    inner[path[-1]] = parse_value(value, where)
    if inner[path[-1]] is None:
        del inner[path[-1]]
    with trusting(*foreign_modules(data)):  # what stood in a file was looked at before; the rest was typed
        checked = check_rule(Document(where, plain(data, where)))
    changed = make_rule(checked, id=id_, where=f"{rule.where} ({where})", optional=False)
    schemes = dict(rule_set.schemes)
    if changed.scheme is not None and changed.scheme not in schemes:
        schemes[changed.scheme] = find_scheme(changed.scheme, where)
    rules = tuple(changed if one is rule else one for one in rule_set.rules)
    result = replace(rule_set, rules=rules, schemes=schemes)
    try:
        if changed.scheme is not None:
            result.scheme(changed)
    except RuleError as error:
        raise RuleError(f"{where}: {error}") from None
    return result
