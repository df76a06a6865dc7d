"""Rules: an ordered list; the last one that matches a layer decides, and replaces the whole decision.

Example:
    >>> rules = load_rule_set("adabin", keep=["layer4"])
    >>> rules.decide(layer).use
    'keep'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from binarize.errors import RuleError, did_you_mean
from binarize.rule_match import holds
from binarize.scheme import Norm, Part, Scheme, Shortcut

if TYPE_CHECKING:
    from binarize.analysis import Layer

__all__ = ["Part", "Rule", "RuleSet", "Scheme", "builtin_rule_sets", "load_rule_set", "rule_file"]

_WEIGHTS_ONLY = "weights-only:"

# What `activation:` may say beside a part's name.
_ACTIVATIONS = {
    "hardtanh": "torch.nn.Hardtanh",
    "prelu": "torch.nn.PReLU",
    "rprelu": "reactnet.RPReLU",
    "maxout": "adabin.Maxout",
}


@dataclass(frozen=True)
class Rule:
    """One entry of the list: for the layers that match, what to do and why."""

    id: str
    # Selector -> alternatives, in canonical form (rule_match.py).
    match: Mapping[str, Any] = field(hash=False)
    # "keep", the name of a scheme, or "weights-only:" and the name of a scheme.
    use: str
    # A patch on the scheme's fields.
    with_: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # None: what the scheme says.
    shortcut: Shortcut | None = None
    norm: Norm | None = None
    # "auto": the scheme's nonlinearity; "keep": the model's own; "none": neither; else a part.
    activation: str = "auto"
    # Shown in the report beside every layer it decides.
    why: str = ""
    # No warning where it matches nothing: rules of shipped files are.
    optional: bool = False
    # "adabin.yaml:12".
    where: str = field(default="", compare=False)

    @property
    def action(self) -> Literal["binarize", "keep"]:
        """What it does to the layers it decides."""
        return "keep" if self.use == "keep" else "binarize"

    @property
    def weights_only(self) -> bool:
        """Whether the layer's input stays float."""
        return self.use.startswith(_WEIGHTS_ONLY)

    @property
    def scheme(self) -> str | None:
        """The name of the scheme it uses, None where it keeps the layer."""
        return None if self.use == "keep" else self.use.removeprefix(_WEIGHTS_ONLY)

    def matches(self, layer: Layer) -> bool:
        """Whether every selector holds for the layer."""
        return holds(self.match, layer)


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

    def matching(self, layer: Layer) -> list[Rule]:
        """The rules that match, in their order: the last one decides."""
        return [rule for rule in self.rules if rule.matches(layer)]

    def decide(self, layer: Layer) -> Rule | None:
        """The last rule that matches; None where none does, and the layer stays float."""
        return next((rule for rule in reversed(self.rules) if rule.matches(layer)), None)

    def scheme(self, rule: Rule) -> Scheme:
        """The scheme as this rule uses it: with its `with`, `shortcut`, `norm` and `activation` applied.

        A scheme whose parts the rule changes has the rule's id in its name, so that names stay unique.
        """
        assert rule.scheme is not None, "a rule that keeps its layers has no scheme"
        scheme = self.schemes[rule.scheme].patched(rule.with_)
        if rule.weights_only:
            scheme = replace(scheme, name=f"{_WEIGHTS_ONLY}{scheme.name}", input=None)
        if rule.activation == "none":
            scheme = replace(scheme, nonlinearity=None)
        elif rule.activation not in ("auto", "keep"):
            scheme = replace(scheme, nonlinearity=Part(_ACTIVATIONS.get(rule.activation, rule.activation)))
        if rule.with_ or rule.activation not in ("auto", "keep"):
            scheme = replace(scheme, name=f"{scheme.name} ({rule.id})")
        return replace(scheme, shortcut=rule.shortcut or scheme.shortcut, norm=rule.norm or scheme.norm)


def _folder() -> Path:
    """Where the shipped rule files lie: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).with_name("rule_sets")
    return installed if installed.is_dir() else Path(__file__).parents[1] / "rules"


def builtin_rule_sets() -> list[str]:
    """The names of the shipped rule sets."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def rule_file(name: str) -> Path:
    """The file of a shipped rule set."""
    if name not in builtin_rule_sets():
        raise RuleError(f'no rule set "{name}"{did_you_mean(name, builtin_rule_sets())}')
    return _folder() / f"{name}.yaml"


def load_rule_set(scheme: str | None = None) -> RuleSet:
    """The rule set of a shipped scheme (first version: shipped files alone)."""
    from ruamel.yaml import YAML

    path = rule_file(scheme or "adabin")
    data = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    rules = tuple(
        Rule(
            id=entry["id"],
            match={
                key: [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value
                for key, value in entry["match"].items()
            },
            use=entry["use"],
            why=entry.get("why", ""),
            optional=True,
            where=f"{path.name}:{data['rules'].lc.item(i)[0] + 1}",
        )
        for i, entry in enumerate(data["rules"])
    )
    method = Scheme.from_json(data["name"], {**data["scheme"], "paper": data["paper"]})
    return RuleSet(
        data["name"], {method.name: method}, rules, paper=data["paper"], description=data["description"]
    )
