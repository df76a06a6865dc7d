"""The rule set of one conversion: the scheme's rules, then the user's, then what the other arguments add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from binarize.analysis.layer import Layer
from binarize.errors import BinarizeError, UsageError
from binarize.rules.bind import bind
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet
from binarize.rules.text import RuleText


def layer(name: str, order: int, **facts: Any) -> Layer:
    return Layer(name=name, type="Conv2d", kind="conv", order=order, kernel=(3, 3), params=9216, **facts)


LAYERS = [
    layer("conv1", 0, position="first"),
    layer("layer1.0.conv1", 1),
    layer("layer1.0.conv2", 2),
    Layer(name="fc", type="Linear", kind="linear", order=3, params=5130, position="last"),
]


def uses(rules: RuleSet) -> list[str | None]:
    """What is decided for each of the layers."""
    bound = bind(rules, LAYERS)
    return [rule.use if (rule := bound.decide(one)) else None for one in LAYERS]


def ids(rules: RuleSet) -> list[str]:
    bound = bind(rules, LAYERS)
    return [rule.id if (rule := bound.decide(one)) else "" for one in LAYERS]


def test_default_is_adabin_with_float_ends() -> None:
    rules = load_rule_set()
    assert rules.name == "adabin"
    assert uses(rules) == ["keep", "adabin", "adabin", "keep"]
    body = rules.decide(LAYERS[1])
    assert body is not None and body.where == f"adabin.yaml:{_line_of_body()}"


def _line_of_body() -> int:
    from binarize.rules.files import rule_file

    lines = rule_file("adabin").read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, start=1) if "id: body" in line)


@pytest.mark.parametrize("form", ["mapping", "list", "rule", "rules", "text", "path", "rule set"])
def test_rules_that_only_keep_come_after_adabin(form: str, tmp_path: Path) -> None:
    entry = {"match": {"name": "layer1.0.conv1"}, "use": "keep"}
    text = "schema: 1\nrules: [{match: {name: layer1.0.conv1}, use: keep}]"
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    rule = Rule(entry["match"], "keep")
    forms: dict[str, Any] = {
        "mapping": {"rules": [entry]},
        "list": [entry],
        "rule": rule,
        "rules": [rule, entry],
        "text": RuleText(text),
        "path": path,
        "rule set": RuleSet("", {}, (rule,)),
    }
    assert uses(load_rule_set(rules=forms[form])) == ["keep", "keep", "adabin", "keep"]


def test_rules_with_a_scheme_of_their_own_stand_alone() -> None:
    assert uses(load_rule_set(rules=[{"match": {"name": "fc"}, "use": "bnn"}])) == [None, None, None, "bnn"]


def test_scheme_that_no_rule_uses_is_not_replaced_by_adabin() -> None:
    assert uses(load_rule_set(rules={"scheme": {"weight": "bnn.SteSign"}, "name": "mine"})) == [None] * 4


def test_scheme_comes_before_the_rules() -> None:
    rules = load_rule_set("bnn", [{"match": {"name": "layer1.0.conv1"}, "use": "xnor", "why": "mine"}])
    assert uses(rules) == ["keep", "xnor", "bnn", "keep"]
    assert rules.name == "bnn"
    assert rules.scheme(rules.rules[-1]).norm == "before_sign"


def test_several_rule_sets_are_joined_in_order() -> None:
    rules = load_rule_set(
        rules=["bnn", {"name": "mine", "rules": [{"match": {"name": "fc"}, "use": "xnor"}]}]
    )
    assert uses(rules) == ["keep", "bnn", "bnn", "xnor"]
    assert rules.name == "mine"


def test_function_comes_after_the_scheme() -> None:
    rules = load_rule_set("bnn", lambda one: "keep" if one.name.endswith("conv2") else None)
    assert uses(rules) == ["keep", "bnn", "keep", "keep"]


def test_scheme_that_other_rules_would_hide_is_refused() -> None:
    with pytest.raises(
        UsageError, match='rules that extend "bireal" come after those of the scheme "adabin"'
    ):
        load_rule_set("adabin", "bireal")
    assert load_rule_set("adabin", {"extends": "adabin"}).rules == load_rule_set("adabin").rules


def test_keep_and_binarize_decide_last() -> None:
    rules = load_rule_set("bnn", keep=["layer1.0.conv1"], binarize=["**"])
    assert uses(rules) == ["bnn", "keep", "bnn", "bnn"]
    assert ids(rules) == ["binarize-1", "keep-1", "binarize-1", "binarize-1"]
    assert rules.rules[-1].where == "--keep layer1.0.conv1"


def test_binarize_uses_what_the_rules_use_first() -> None:
    assert uses(
        load_rule_set(
            rules={"rules": [{"match": {"name": "fc"}, "use": "weights-only:bnn"}]}, binarize=["conv1"]
        )
    ) == [
        "weights-only:bnn",
        None,
        None,
        "weights-only:bnn",
    ]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 1, ["keep", "bnn", "bnn", "keep"]),
        (0, 1, ["bnn", "bnn", "bnn", "keep"]),
        (0, 0, ["bnn", "bnn", "bnn", "bnn"]),
        (2, 1, ["keep", "keep", "bnn", "keep"]),
        (1, 3, ["keep", "keep", "keep", "keep"]),
        (0, 2, ["bnn", "bnn", "keep", "keep"]),
    ],
)
def test_ends_that_stay_float(first: int, last: int, expected: list[str]) -> None:
    assert uses(load_rule_set("bnn", keep_first=first, keep_last=last)) == expected


def test_one_end_of_a_rule_for_both_is_dropped() -> None:
    text = [
        {"match": {"kind": ["conv", "linear"]}, "use": "bnn"},
        {"match": {"position": ["first", "last"]}, "use": "keep"},
    ]
    assert uses(load_rule_set(rules=text, keep_first=0)) == ["bnn", "bnn", "bnn", "keep"]


def test_shortcuts_override_schemes_and_rules() -> None:
    mine = [{"match": {"name": "fc"}, "use": "bnn", "shortcut": "never"}]
    rules = load_rule_set("adabin_paper", mine, shortcuts="missing")
    assert {rules.scheme(rule).shortcut for rule in rules.rules if rule.action == "binarize"} == {"missing"}
    assert {rule.shortcut for rule in rules.rules if rule.action == "keep"} == {None}
    bound = bind(load_rule_set(rules=lambda one: "bnn", shortcuts="missing"), LAYERS)
    assert bound.rules[0].shortcut == "missing"


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("body.use=bireal", "use", "bireal"),
        ("body.shortcut=every", "shortcut", "every"),
        ('body.why="no: really"', "why", "no: really"),
        (
            "body.match.kernel=[1, 3]",
            "match",
            {"kind": ["conv", "conv_transpose", "linear"], "kernel": [1, 3]},
        ),
        (
            "body.match.name=**.conv1",
            "match",
            {"kind": ["conv", "conv_transpose", "linear"], "name": ["**.conv1"]},
        ),
        ("body.with.input.form=code", "with_", {"input": {"form": "code"}}),
        ("body.optional=", "optional", False),
    ],
)
def test_override_sets_a_field_of_a_rule(override: str, field: str, value: object) -> None:
    rules = load_rule_set("adabin", overrides=[override])
    assert getattr(rules.rules[0], field) == value
    assert rules.rules[0].where.endswith(f"(--set {override})")
    assert rules.rules[1:] == load_rule_set("adabin").rules[1:]
    rules.scheme(rules.rules[0])


def test_override_reaches_rules_of_the_command_line() -> None:
    rules = load_rule_set("bnn", keep=["fc"], overrides=["keep-1.why=too sensitive"])
    assert rules.rules[-1].why == "too sensitive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "adabim"}, 'there is no scheme "adabim"; did you mean "adabin"?'),
        ({"rules": "birael"}, 'there is no rule set and no file "birael" (did you mean "bireal"?)'),
        ({"rules": "my.yaml"}, "my.yaml: no such file or directory"),
        ({"rules": 7}, "rules is 7; expected a name, a path"),
        ({"rules": [7]}, "rules is 7; expected a name, a path"),
        ({"rules": {"rules": [{"match": {"in": 1}, "use": object()}]}}, "rules: rules[0].use is <object"),
        ({"keep": ["a["]}, '--keep a[: "a[": "[" begins a range'),
        (
            {"shortcuts": "evry"},
            'shortcuts is "evry"; expected one of never, missing, every, residual; did you mean "every"?',
        ),
        ({"keep_last": -1}, "keep_last is -1; expected 0 or more"),
        ({"overrides": ["bdy.use=keep"]}, '--set bdy.use=keep: there is no rule "bdy"; did you mean "body"?'),
        ({"overrides": ["body.usee=keep"]}, 'rules have no field "usee"; did you mean "use"?'),
        ({"overrides": ["body.id=x"]}, 'rules have no field "id"'),
        ({"overrides": ["body.use"]}, "expected id.field=value, such as first.use=keep"),
        ({"overrides": ["body.use=birael"]}, 'there is no scheme "birael"; did you mean "bireal"?'),
        ({"overrides": ["body.match.kernal=1"]}, 'unknown selector "kernal" (did you mean "kernel"?)'),
        ({"overrides": ["body.with.input.fom=1"]}, "takes no 'fom'; did you mean \"form\"?"),
        ({"overrides": ["body.why=no: really"]}, "why is a mapping; expected text"),
        ({"overrides": ["body.use=[1,"]}, "this is no YAML"),
        ({"overrides": ["first.shortcut=every"]}, 'a rule that keeps its layers has no "shortcut"'),
    ],
)
def test_argument_that_cannot_be_meant(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BinarizeError) as caught:
        load_rule_set(**arguments)
    assert message in str(caught.value)
    assert caught.value.exit_code in (2, 3)
