"""Rules and rule sets: who decides, what a scheme becomes, what is written down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binarize.analysis.layer import Layer
from binarize.errors import RuleError
from binarize.rules.bind import bind
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet
from binarize.rules.text import RuleText
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

BNN = Scheme("bnn", weight=Part("bnn.SteSign"), input=Part("bnn.SteSign"), nonlinearity=Part("adabin.Maxout"))


def layer(name: str, order: int = 0, **facts: Any) -> Layer:
    return Layer(name=name, type="Conv2d", kind="conv", order=order, kernel=(3, 3), params=9216, **facts)


def rule_set(*rules: Rule) -> RuleSet:
    return RuleSet("set", {"bnn": BNN}, rules)


LAYERS = [layer("conv1", 0), layer("body.0", 1), layer("body.1", 2), layer("fc", 3)]


def test_last_match_decides_and_nothing_is_merged() -> None:
    first = Rule({"kind": "conv"}, "bnn", id="a", shortcut="every", why="first")
    second = Rule({"name": "body"}, "bnn", id="b")
    rules = rule_set(first, second, Rule({"name": "fc"}, "keep", id="c"))
    assert [rules.decide(one) for one in LAYERS] == [first, second, second, rules.rules[2]]
    assert rules.matching(LAYERS[1]) == [first, second]
    assert rules.explain(LAYERS[1]) == [(first, True), (second, True), (rules.rules[2], False)]
    assert rules.scheme(second).shortcut == "never"
    assert rule_set(second).decide(LAYERS[0]) is None


def test_rule_says_what_it_does() -> None:
    keep, full, weights = Rule({"in": 1}, "keep"), Rule({"in": 1}, "bnn"), Rule({"in": 1}, "weights-only:bnn")
    assert [rule.action for rule in (keep, full, weights)] == ["keep", "binarize", "binarize"]
    assert [rule.scheme for rule in (keep, full, weights)] == [None, "bnn", "bnn"]
    assert [rule.weights_only for rule in (keep, full, weights)] == [False, False, True]


@pytest.mark.parametrize("match", [{"kernal": 1}, {"kind": "convv"}, {"name": "re:("}, {}])
def test_rule_that_no_file_could_say_is_refused(match: dict[str, Any]) -> None:
    with pytest.raises(RuleError):
        Rule(match, "keep")


@pytest.mark.parametrize(
    ("rule", "changes", "name"),
    [
        ({}, {}, "bnn"),
        ({"shortcut": "every", "norm": "never"}, {"shortcut": "every", "norm": "never"}, "bnn"),
        ({"activation": "keep"}, {}, "bnn"),
        ({"activation": "none"}, {"nonlinearity": None}, "bnn (r)"),
        ({"activation": "rprelu"}, {"nonlinearity": Part("reactnet.RPReLU")}, "bnn (r)"),
        ({"activation": "torch.nn.ELU"}, {"nonlinearity": Part("torch.nn.ELU")}, "bnn (r)"),
        ({"use": "weights-only:bnn"}, {"input": None}, "weights-only:bnn"),
        ({"with_": {"input": {"clip": 2}}}, {"input": Part("bnn.SteSign", {"clip": 2})}, "bnn (r)"),
    ],
)
def test_scheme_as_a_rule_uses_it(rule: dict[str, Any], changes: dict[str, Any], name: str) -> None:
    given_rule = Rule(**{"match": {"in": 1}, "use": "bnn", "id": "r", **rule})
    used = rule_set(given_rule).scheme(given_rule)
    assert used.name == name
    for field, value in changes.items():
        assert getattr(used, field) == value
    if not changes:
        assert used == BNN


def test_scheme_that_is_missing_is_named() -> None:
    rule = Rule({"in": 1}, "bn", id="r")
    with pytest.raises(RuleError, match='rule "r": this rule set has no scheme "bn"; did you mean "bnn"'):
        rule_set(rule).scheme(rule)


def test_bind_puts_names_in_place_of_counts() -> None:
    rules = rule_set(Rule({"kind": "conv"}, "bnn"), Rule({"last": 2}, "keep"), Rule({"first": 1}, "keep"))
    with pytest.raises(AssertionError):
        rules.decide(LAYERS[0])
    bound = bind(rules, LAYERS)
    assert [rule.use for one in LAYERS if (rule := bound.decide(one))] == ["keep", "bnn", "keep", "keep"]
    assert bound.rules[1].match == {"name": ["body.1", "fc"]}
    assert bind(bound, LAYERS) == bound


def test_bind_asks_a_function_for_each_layer() -> None:
    def choose(one: Layer) -> object:
        if one.name == "fc":
            return "keep"
        if one.name == "conv1":
            return Rule({"kernel": 99}, "bireal", why="stem", shortcut="every")
        return "bnn" if one.name == "body.0" else None

    rules = load_rule_set(rules=choose)
    with pytest.raises(RuleError, match="a function has no place in a rule file"):
        rules.to_yaml()
    bound = bind(rules, LAYERS)
    found = [bound.decide(one) for one in LAYERS]
    assert [rule and rule.use for rule in found] == ["bireal", "bnn", None, "keep"]
    assert found[0] is not None and (found[0].why, found[0].shortcut) == ("stem", "every")
    assert set(bound.schemes) == {"bireal", "bnn"}
    assert load_rule_set(rules=RuleText(bound.to_yaml())) == bound


@pytest.mark.parametrize("answer", [3, "no-such-scheme"])
def test_function_with_an_odd_answer_is_named(answer: object) -> None:
    def choose(one: Layer) -> object:
        return answer

    with pytest.raises(RuleError, match="function choose"):
        bind(load_rule_set(rules=choose), LAYERS)


def test_unmatched_patterns_come_with_the_nearest_names() -> None:
    names = [layer(f"classifier.{i}", i) for i in (0, 3, 6)]
    rules = rule_set(
        Rule({"name": ["clasifier.*", "classifier.0"]}, "keep", id="head", where="my.yaml:12"),
        Rule({"type": "Conv2D"}, "keep", id="typo", where="my.yaml:13"),
        Rule({"name": "nothing"}, "keep", optional=True),
        Rule({"groups": "depthwise"}, "keep"),
    )
    first, second = rules.unmatched(names)
    assert str(first) == (
        'rule "head" (my.yaml:12) matched no layer: name "clasifier.*"\n'
        "         nearest: classifier.0, classifier.3, classifier.6"
    )
    assert (second.selector, second.pattern, second.nearest) == ("type", "Conv2D", ("Conv2d",))


def test_shipped_rules_are_optional_and_a_users_are_not() -> None:
    rules = load_rule_set("adabin", keep=["nothing"])
    assert [(one.rule, one.where) for one in rules.unmatched(LAYERS)] == [("keep-1", "--keep nothing")]


def test_yaml_holds_the_schemes_and_a_rule_a_line() -> None:
    rules = rule_set(
        Rule({"kind": "conv", "kernel": [1, ">=3"]}, "bnn", id="a", why="it is: so", where="my.yaml:3")
    )
    text = rules.to_yaml()
    assert "  bnn:\n    weight: bnn.SteSign\n    input: bnn.SteSign\n" in text
    line = '  - {id: a, match: {kind: conv, kernel: [1, ">=3"]}, use: bnn, why: "it is: so"} # my.yaml:3\n'
    assert line in text
    assert load_rule_set(rules=RuleText(text)) == rules


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(0, 9) | st.sampled_from([">=3", "<100, >2", "!=1"])


def several(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return item | st.lists(item, min_size=1, max_size=3)


SELECTORS: dict[str, st.SearchStrategy[Any]] = {
    "name": several(WORDS.filter(lambda text: text and "[" not in text and not text.startswith("re:"))),
    "type": several(st.sampled_from(["Conv2d", "*Conv*", "re:Conv.d"])),
    "kind": several(st.sampled_from(["conv", "linear"])),
    "position": several(st.sampled_from(["first", "last", "stem"])),
    "kernel": several(NUMBERS | st.just("3x3")),
    "groups": several(NUMBERS | st.just("depthwise")),
    "in": several(NUMBERS),
    "params": several(NUMBERS),
    "gate": st.booleans(),
    "first": st.integers(1, 3),
}
MATCHES = st.recursive(
    st.fixed_dictionaries({}, optional=SELECTORS).filter(bool),
    lambda inner: st.fixed_dictionaries(
        {}, optional={key: st.lists(inner, min_size=1, max_size=2) for key in ("not", "any")}
    ).filter(bool),
    max_leaves=4,
)
WITH = st.fixed_dictionaries(
    {},
    optional={
        "input": st.just({"clip": 2}) | st.sampled_from(["bireal.ApproxSign", None]),
        "norm": st.sampled_from(["never", "missing"]),
        "clip": st.none() | st.just([-1, 1.5]),
        "pad_value": st.sampled_from([0, 1, -1]),
        "training": st.fixed_dictionaries({}, optional={"lr": st.floats(0, 1), "epochs": st.integers(1, 9)}),
    },
)
BINARIZING = st.builds(
    Rule,
    match=MATCHES,
    use=st.sampled_from(["bnn", "weights-only:bnn"]),
    with_=WITH,
    shortcut=st.sampled_from([None, "every", "never"]),
    norm=st.sampled_from([None, "before_sign"]),
    activation=st.sampled_from(["auto", "keep", "none", "rprelu", "torch.nn.ELU"]),
    why=WORDS,
    where=WORDS,
    optional=st.booleans(),
)
KEEPING = st.builds(Rule, match=MATCHES, use=st.just("keep"), why=WORDS)


@given(st.lists(BINARIZING | KEEPING, max_size=4))
@settings(deadline=None)
def test_rule_set_that_was_written_is_read_back_equal(rules: list[Rule]) -> None:
    numbered = [Rule(**{**vars(rule), "id": f"r{i}"}) for i, rule in enumerate(rules)]
    written = RuleSet(
        "set", {"bnn": BNN}, tuple(numbered), "a paper: x", "what # it is", {"input_shape": [1, 3]}
    )
    assert RuleSet.from_json(written.to_json()) == written
    if any(rule.use != "keep" for rule in rules):
        assert load_rule_set(rules=RuleText(written.to_yaml())) == written
