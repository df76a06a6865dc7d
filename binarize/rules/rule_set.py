"""Rules and rule sets: who decides about a layer, and as what they are written down."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from binarize.errors import RuleError, did_you_mean
from binarize.rules.match import counts, holds, strays
from binarize.rules.schema import check_file, check_rule
from binarize.rules.text import flow, plain
from binarize.rules.values import ACTIVATIONS, WEIGHTS_ONLY
from binarize.rules.yaml.document import Document
from binarize.schemes.part import Part, foreign_modules
from binarize.schemes.scheme import Downsample, Norm, Scheme, Shortcut
from binarize.trust import trusting

if TYPE_CHECKING:
    from binarize.analysis.layer import Layer

__all__ = ["Rule", "RuleSet", "Unmatched", "make_rule"]


@dataclass(frozen=True)
class Rule:
    """One entry of the list: for the layers that match, what to do and why.

    Example:
        >>> Rule({"name": "layer4.**", "kernel": 3}, "keep", why="sensitive")

    Raises RuleError where a rule file could not say it.
    """

    # Selector -> value; kept in the canonical form of match.py.
    match: Mapping[str, Any] = field(hash=False)
    # "keep", the name of a scheme, or "weights-only:" and the name of a scheme.
    use: str
    # Given by the file's loader where it is empty.
    id: str = ""
    # A patch on the scheme's fields.
    with_: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # None: what the scheme says.
    shortcut: Shortcut | None = None
    norm: Norm | None = None
    downsample: Downsample | None = None
    # "auto": the scheme's nonlinearity; "keep": the model's own; "none": neither; else a part.
    activation: str = "auto"
    # Shown in the report beside every layer it decides.
    why: str = ""
    # No warning where it matches nothing; rules of shipped files are.
    optional: bool = False
    # "adabin.yaml:12".
    where: str = field(default="", compare=False)
    # Asked for each layer by `bind`, which puts rules with names in its place.
    function: Callable[[Layer], object] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        data = plain(self.to_json(), f"rule {self.id}")
        # Of a file, it was looked at before there was a rule; else whoever makes a rule names the parts in it.
        with trusting(*foreign_modules(data)):
            checked = check_rule(Document(f"rule {self.id}", data))
        object.__setattr__(self, "match", checked["match"])
        object.__setattr__(self, "with_", checked.get("with", {}))

    @property
    def action(self) -> Literal["binarize", "keep"]:
        """What it does to the layers it decides."""
        return "keep" if self.use == "keep" else "binarize"

    @property
    def weights_only(self) -> bool:
        """Whether the layer's input stays float."""
        return self.use.startswith(WEIGHTS_ONLY)

    @property
    def scheme(self) -> str | None:
        """The name of the scheme it uses, None where it keeps the layer."""
        return None if self.use == "keep" else self.use.removeprefix(WEIGHTS_ONLY)

    def matches(self, layer: Layer) -> bool:
        """Whether every selector holds for the layer."""
        assert not self.unbound, (
            "a rule that counts layers or asks a function was used before it was bound to the layers"
        )
        return holds(self.match, layer)

    @property
    def unbound(self) -> bool:
        """Whether it needs to see all layers first: it counts them, or it asks a function."""
        return self.function is not None or counts(self.match)

    def to_json(self) -> dict[str, Any]:
        """The rule as a rule file writes it: what has its default is left out, a list of one is its item."""
        data: dict[str, Any] = {
            "id": self.id,
            "match": _short(self.match),
            "use": self.use,
            "with": self.with_,
        }
        data |= {"shortcut": self.shortcut, "norm": self.norm, "downsample": self.downsample}
        data |= {"why": self.why, "optional": self.optional}
        data["activation"] = None if self.activation == "auto" else self.activation
        return {
            key: value for key, value in data.items() if key == "match" or value not in (None, "", {}, False)
        }


def make_rule(data: Mapping[str, Any], *, id: str, where: str, optional: bool) -> Rule:
    """A rule from checked data; the id and the optional flag hold where the data has none."""
    changed = {"id": id, "optional": optional, **data}
    return Rule(**{"with_" if key == "with" else key: value for key, value in changed.items()}, where=where)


@dataclass(frozen=True)
class Unmatched:
    """A pattern that matched no layer."""

    # The rule's id.
    rule: str
    pattern: str
    # Up to three layers (or class names) that look like it, in the order they run.
    nearest: tuple[str, ...] = ()
    # "my.yaml:12".
    where: str = ""
    # "name", or a selector that takes class names.
    selector: str = "name"

    def __str__(self) -> str:
        near = "\n         nearest: " + ", ".join(self.nearest) if self.nearest else ""
        rule = f'rule "{self.rule}" ({self.where})'
        return f'{rule} matched no layer: {self.selector} "{self.pattern}"{near}'


@dataclass(frozen=True)
class RuleSet:
    """Schemes and the ordered rules that hand them out."""

    name: str
    schemes: Mapping[str, Scheme] = field(hash=False)
    rules: tuple[Rule, ...] = ()
    paper: str = ""
    description: str = ""
    # Values for options that were not given: {input_shape: [1, 3, 224, 224]}.
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of users' own parts in it: a rule set that exists was allowed to name them."""
        schemes = [scheme.to_json() for scheme in self.schemes.values()]
        rules = [[rule.with_, rule.activation] for rule in self.rules]
        return tuple(dict.fromkeys(foreign_modules([*schemes, *rules])))

    def matching(self, layer: Layer) -> list[Rule]:
        """The rules that match, in their order: the last one decides."""
        return [rule for rule in self.rules if rule.matches(layer)]

    def decide(self, layer: Layer) -> Rule | None:
        """The last rule that matches; None where none does, and the layer stays float."""
        return next((rule for rule in reversed(self.rules) if rule.matches(layer)), None)

    def explain(self, layer: Layer) -> list[tuple[Rule, bool]]:
        """Every rule in order, and whether it matches."""
        return [(rule, rule.matches(layer)) for rule in self.rules]

    @property
    def main_use(self) -> str | None:
        """What the first rule that binarizes uses, None where none does."""
        return next((rule.use for rule in self.rules if rule.use != "keep" and rule.function is None), None)

    def scheme(self, rule: Rule) -> Scheme:
        """The scheme as this rule uses it: with its `with`, `shortcut`, `norm`, `downsample` and `activation` applied.

        A scheme whose parts the rule changes has the rule's id in its name, so that names stay unique.
        """
        assert rule.scheme is not None, "a rule that keeps its layers has no scheme"
        if rule.scheme not in self.schemes:
            near = did_you_mean(rule.scheme, self.schemes)
            raise RuleError(f'rule "{rule.id}": this rule set has no scheme "{rule.scheme}"{near}')
        scheme = self.schemes[rule.scheme].patched(rule.with_)
        if rule.weights_only:
            scheme = replace(scheme, name=f"{WEIGHTS_ONLY}{scheme.name}", input=None)
        if rule.activation == "none":
            scheme = replace(scheme, nonlinearity=None)
        elif rule.activation not in ("auto", "keep"):
            part = Part(ACTIVATIONS.get(rule.activation, rule.activation))
            scheme = replace(scheme, nonlinearity=part)
        if rule.with_ or rule.activation not in ("auto", "keep"):
            scheme = replace(scheme, name=f"{scheme.name} ({rule.id})")
        return replace(
            scheme,
            shortcut=rule.shortcut or scheme.shortcut,
            norm=rule.norm or scheme.norm,
            downsample=rule.downsample or scheme.downsample,
        )

    def unmatched(self, layers: Sequence[Layer]) -> list[Unmatched]:
        """The names and class names in rules that fit no layer, unless the rule is optional."""
        return [
            Unmatched(rule.id, text, _nearest(text, words), rule.where, selector)
            for rule in self.rules
            if not rule.optional and rule.function is None
            for selector, text, words in strays(rule.match, layers)
        ]

    def to_json(self) -> dict[str, Any]:
        """The rule set as one rule file that needs no other: the schemes stand in it."""
        data = {"schema": 1, "name": self.name, "paper": self.paper, "description": self.description}
        data["defaults"] = dict(self.defaults)
        data["schemes"] = {name: _given(scheme) for name, scheme in self.schemes.items()}
        if any(rule.function for rule in self.rules):
            raise RuleError("a function has no place in a rule file; bind the rule set to the layers first")
        data["rules"] = [rule.to_json() for rule in self.rules]
        return {key: value for key, value in data.items() if value not in ("", {})}

    def to_yaml(self) -> str:
        """`to_json` as YAML, a line a rule, with the place each rule came from."""
        lines = []
        for key, value in self.to_json().items():
            if key == "rules":
                lines.append("rules: # the last rule that matches decides, and replaces the whole decision")
                for rule, data in zip(self.rules, value):
                    lines.append(
                        f"  - {flow(data)}" + (f" # {rule.where}" if rule.where.isprintable() else "")
                    )
            elif key == "schemes":
                lines.append("schemes:")
                for name, scheme in value.items():
                    lines.append(f"  {flow(name)}:")
                    lines += [f"    {field_}: {flow(item)}" for field_, item in scheme.items()]
            else:
                lines.append(f"{key}: {flow(value)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RuleSet:
        """The rule set whose `to_json` is `data`."""
        document = Document("rule set", plain(data, "rule set"))
        checked = check_file(document)
        rules = tuple(
            make_rule(entry, id=f"rule{i}", where=document.line(("rules", i - 1)), optional=False)
            for i, entry in enumerate(checked.get("rules", []), start=1)
        )
        schemes = {
            name: Scheme.from_json(name, scheme) for name, scheme in checked.get("schemes", {}).items()
        }
        rest = {key: checked[key] for key in ("name", "paper", "description", "defaults") if key in checked}
        return cls(schemes=schemes, rules=rules, **{"name": "rules", **rest})


def _given(scheme: Scheme) -> dict[str, Any]:
    """The fields of a scheme that are not the default."""
    default = Scheme(scheme.name).to_json()
    return {key: value for key, value in scheme.to_json().items() if value != default.get(key)}


def _short(match: Mapping[str, Any]) -> dict[str, Any]:
    """A match as one writes it: a list of one alternative is that alternative."""
    result: dict[str, Any] = {}
    for key, value in match.items():
        if isinstance(value, list):
            value = [_short(one) if isinstance(one, Mapping) else one for one in value]
            value = value[0] if len(value) == 1 else value
        result[key] = value
    return result


def _nearest(text: str, words: Iterable[str]) -> tuple[str, ...]:
    ordered = list(words)
    near = difflib.get_close_matches(text.removeprefix("re:"), ordered, n=3, cutoff=0.5)
    return tuple(sorted(near, key=ordered.index))
