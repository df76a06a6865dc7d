"""Finding rule files and joining what they extend into one rule set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from binarize.disk.file_name import is_there
from binarize.errors import RuleError, did_you_mean
from binarize.rules.join import free_id, join
from binarize.rules.rule_set import Rule, RuleSet, make_rule
from binarize.rules.schema import check_file
from binarize.rules.text import RuleText, parse, plain, read_text
from binarize.rules.values import WEIGHTS_ONLY, found, hint
from binarize.rules.yaml.document import Document, Fault
from binarize.schemes.scheme import Scheme

__all__ = ["Loader", "builtin_rule_sets", "find_scheme", "rule_file", "shipped_rule_set"]

# Files one below the other: deeper than anybody builds them, far from the end of Python's stack.
_MOST_FILES = 64


def _folder() -> Path:
    """Where the shipped rule files lie: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "rule_sets"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "rules"


def builtin_rule_sets() -> list[str]:
    """The names of the shipped rule sets."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def rule_file(name: str) -> Path:
    """The file of a shipped rule set. Raises RuleError with the nearest name where there is none."""
    if name not in builtin_rule_sets():
        raise RuleError(f'there is no rule set "{name}"{did_you_mean(name, builtin_rule_sets())}')
    return _folder() / f"{name}.yaml"


@cache
def shipped_rule_set(name: str) -> RuleSet:
    """A shipped rule set; its rules are optional, as they are written for all models."""
    text = replace(read_text(rule_file(name)), name=f"{name}.yaml")
    rule_set = Loader().join_extended(parse(text), name, _folder())
    return replace(rule_set, rules=tuple(replace(rule, optional=True) for rule in rule_set.rules))


def find_scheme(name: str, where: str) -> Scheme:
    """The scheme that a shipped rule set of this name defines. Raises RuleError where there is none."""
    if name not in builtin_rule_sets():
        known = [*builtin_rule_sets(), "keep"]
        raise RuleError(f'{where}: there is no scheme "{name}"{did_you_mean(name, known)}')
    return shipped_rule_set(name).schemes[name]


@dataclass(frozen=True)
class _Found:
    """A rule file: what makes it itself, its text, its name, and where its relative paths start."""

    key: str
    text: RuleText
    name: str
    folder: Path


class Loader:
    """Loads one rule set and what it extends; remembers which shipped ones were among them."""

    def __init__(self) -> None:
        self.shipped: set[str] = set()
        # Files being loaded, outermost first.
        self._open: list[str] = []
        self._done: dict[str, RuleSet] = {}

    def load(self, source: str | Path | Mapping[str, Any] | RuleText) -> RuleSet:
        """The rule set of a name, a path, a mapping or a text."""
        if isinstance(source, Mapping):
            data = {"schema": 1, **plain(source, "rules")}
            return self.join_extended(Document("rules", data), "", Path())
        if isinstance(source, RuleText):
            return self.join_extended(parse(source), "", Path())
        return self._load(self._find(source, Path()))

    def _find(self, source: str | Path, folder: Path) -> str | _Found:
        """The name of a shipped rule set, or a file; a relative path starts at the folder."""
        text = str(source)
        if isinstance(source, str) and text in builtin_rule_sets():
            return text
        path = folder / text
        is_path = text.endswith((".yaml", ".yml")) or "/" in text or os.sep in text
        if not is_path and not is_there(path):
            raise RuleError(
                f"there is no rule set and no file {found(text)}{hint(text, builtin_rule_sets())}"
            )
        content = read_text(path)
        key = os.path.realpath(path)
        if key in self._open:
            circle = [*self._open[self._open.index(key) :], key]
            raise RuleError(f"extends goes round in a circle: {' -> '.join(map(os.path.basename, circle))}")
        if len(self._open) >= _MOST_FILES:
            raise RuleError(f"more than {_MOST_FILES} files extend each other in a row")
        # A name may not hold what `--set id.field=value` is taken apart by.
        name = "".join("-" if c in ".=" or c.isspace() else c for c in path.stem)
        return _Found(key, content, name, path.parent)

    def _load(self, source: str | _Found) -> RuleSet:
        if isinstance(source, str):
            self.shipped.add(source)
            return shipped_rule_set(source)
        if source.key not in self._done:
            self._open.append(source.key)
            self._done[source.key] = self.join_extended(parse(source.text), source.name, source.folder)
            self._open.pop()
        return self._done[source.key]

    def join_extended(self, document: Document, name: str, folder: Path) -> RuleSet:
        """The rule set of one document, after those it extends."""
        data = check_file(document)
        bases = []
        for i, base in enumerate(data.get("extends", [])):
            try:
                source = self._find(base, folder)
            except RuleError as error:
                raise document.error(Fault(str(error), ("extends", i))) from None
            bases.append(self._load(source))
        name = data.get("name", name)
        below = _with_schemes(join(bases), name, data, document)
        rules = _rules(data, document)
        schemes = dict(below.schemes)
        _find_schemes(rules, schemes, document)
        rest = {key: data[key] for key in ("paper", "description", "defaults") if key in data}
        joined = join([below, RuleSet(name, schemes, rules, **rest)])
        _check_schemes(joined, rules, document)
        return joined


def _with_schemes(below: RuleSet, name: str, data: Mapping[str, Any], document: Document) -> RuleSet:
    """The extended rule set with the schemes of a file added, or changed by it."""
    schemes, rules = dict(below.schemes), below.rules
    head = {key: data[key] for key in ("paper", "description") if key in data}
    if "scheme" in data and not schemes:
        schemes[name] = _scheme(Scheme(name), {**head, **data["scheme"]}, document, ("scheme",))
    elif "scheme" in data:
        old = below.name if below.name in schemes else next(iter(schemes))
        if len(schemes) > 1 and old != below.name:
            many = ", ".join(schemes)
            text = f"which of the extended schemes does this change: {many}? Write schemes: {{{old}: ...}}"
            raise document.error(Fault(text, ("scheme",), at_key=True))
        # The changed scheme takes the place of the old one, in the extended rules as well.
        changed = _scheme(schemes.pop(old), {**head, **data["scheme"]}, document, ("scheme",))
        schemes[name] = replace(changed, name=name)
        rules = tuple(
            replace(rule, use=rule.use.removesuffix(old) + name) if rule.scheme == old else rule
            for rule in rules
        )
    for key, patch in data.get("schemes", {}).items():
        if key == "keep" or key.startswith(WEIGHTS_ONLY):
            raise document.error(Fault(f'a scheme cannot be called "{key}"', ("schemes", key), at_key=True))
        schemes[key] = _scheme(schemes.get(key, Scheme(key)), patch, document, ("schemes", key))
    return replace(below, schemes=schemes, rules=rules)


def _scheme(old: Scheme, patch: Mapping[str, Any], document: Document, path: tuple[str, ...]) -> Scheme:
    try:
        scheme = old.patched(patch)
    except RuleError as error:
        raise document.error(Fault(str(error), path)) from None
    if scheme.weight is None and scheme.input is None:
        raise document.error(
            Fault("a scheme needs a weight binarizer or an input binarizer", path, at_key=True)
        )
    return scheme


def _rules(data: Mapping[str, Any], document: Document) -> tuple[Rule, ...]:
    """The rules that a file itself lists, each with an id."""
    entries = data.get("rules", [])
    seen: dict[str, int] = {}
    for i, entry in enumerate(entries):
        if entry.get("id") in seen:
            first = document.line(("rules", seen[entry["id"]]))
            raise document.error(
                Fault(f'duplicate id "{entry["id"]}"; {first} has it already', ("rules", i, "id"))
            )
        if "id" in entry:
            seen[entry["id"]] = i
    taken = set(seen)
    rules = []
    for i, entry in enumerate(entries):
        id_ = entry["id"] if "id" in entry else free_id(f"rule{i + 1}", taken)
        taken.add(id_)
        rules.append(make_rule(entry, id=id_, where=document.line(("rules", i)), optional=False))
    return tuple(rules)


def _find_schemes(rules: Iterable[Rule], schemes: dict[str, Scheme], document: Document) -> None:
    """Adds the shipped schemes that rules use by name. Raises RuleError for a scheme that there is not."""
    for i, rule in enumerate(rules):
        if rule.scheme is None or rule.scheme in schemes:
            continue
        if rule.scheme not in builtin_rule_sets():
            known = ["keep", *schemes, *builtin_rule_sets()]
            text = f'there is no scheme "{rule.scheme}"{hint(rule.scheme, known)}'
            raise document.error(Fault(text, ("rules", i, "use")))
        schemes[rule.scheme] = find_scheme(rule.scheme, rule.where)


def _check_schemes(rule_set: RuleSet, rules: Iterable[Rule], document: Document) -> None:
    """Raises RuleError where a rule's `with` does not fit its scheme."""
    for i, rule in enumerate(rules):
        try:
            if rule.scheme is not None:
                rule_set.scheme(rule)
        except RuleError as error:
            raise document.error(Fault(str(error), ("rules", i, "with"))) from None
