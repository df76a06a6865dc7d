"""What a rule file may say: every fault is found in its place, and editors see the same schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from binarize.errors import BinarizeError, RuleError
from binarize.rules.files import builtin_rule_sets, rule_file
from binarize.rules.load import load_rule_set
from binarize.rules.schema import json_schema
from binarize.rules.text import RuleText

HEAD = "schema: 1\nrules:\n"


def first_line(text: str) -> str:
    with pytest.raises(RuleError) as caught:
        load_rule_set(rules=RuleText(text, "my.yaml"))
    return str(caught.value).splitlines()[0].removeprefix("my.yaml:")


def assert_fault(marked: str, message: str) -> None:
    """The message, and its line and column where the text is marked by a bar."""
    before, _, after = marked.partition("¦")
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}  "
    found = first_line(before + after)
    assert found.startswith(place)
    assert message in found


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{match: {¦kernal: 1}, use: keep}", 'unknown selector "kernal" (did you mean "kernel"?)'),
        ("{match: {kind: ¦convv}, use: keep}", 'kind is "convv"; expected '),
        ("{match: {kind: ¦convv}, use: keep}", '(did you mean "conv"?)'),
        ("{match: {kernel: 1}, ¦usee: keep}", 'unknown key "usee" (did you mean "use"?)'),
        ("¦{match: {kernel: 1}}", 'missing key "use"'),
        ("¦{use: keep}", 'missing key "match"'),
        ("{match: ¦{}, use: keep}", 'match is empty; name: "**" matches every layer'),
        ("{match:¦ , use: keep}", "match is empty; expected a mapping"),
        ("{match: {kernel: 1}, use: ¦adabim}", 'there is no scheme "adabim" (did you mean "adabin"?)'),
        ("{match: {kernel: 1}, use: ¦3}", "use is 3; expected keep, the name of a scheme"),
        ("{match: {kernel: 1}, use: keep, why: ¦3}", "why is 3; expected text; put it into quotes"),
        (
            "{match: {kernel: ¦1.5}, use: keep}",
            'kernel is 1.5; expected a number or a comparison such as ">=64"',
        ),
        ("{match: {groups: ¦-1}, use: keep}", 'groups: "-1" is no number and no comparison'),
        ("{match: {params: ¦lots}, use: keep}", 'params: "lots" is no number and no comparison'),
        ("{match: {name: ['a', ¦'re:(']}, use: keep}", 'name: "re:(" is no regular expression of RE2, '),
        ("{match: {name: [a, ¦[]]}, use: keep}", "name is a list; expected a name or a pattern"),
        ("{match: {gate: ¦maybe}, use: keep}", 'gate is "maybe"; expected true or false'),
        ("{match: {first: ¦0}, use: keep}", "first is 0; expected 1 or more"),
        ("{match: {not: {any: [{¦knd: conv}]}}, use: keep}", 'unknown selector "knd" (did you mean "kind"?)'),
        ("{match: {¦subclasses: true}, use: keep}", "subclasses widens type, and there is no type here"),
        (
            "{match: {kernel: 1}, use: keep, ¦shortcut: every}",
            'a rule that keeps its layers has no "shortcut"',
        ),
        (
            "{match: {kernel: 1}, use: bnn, shortcut: ¦evry}",
            'shortcut is "evry"; expected never, missing, every or residual',
        ),
        ("{match: {kernel: 1}, use: bnn, activation: ¦rprlu}", '(did you mean "rprelu"?)'),
        ("{match: {kernel: 1}, use: bnn, activation: ¦adabin.Maxot}", 'there is no part "adabin.Maxot"'),
        (
            "{match: {kernel: 1}, use: adabin, with: ¦{input: {fom: code}}}",
            "takes no 'fom'; did you mean \"form\"?",
        ),
        (
            "{match: {kernel: 1}, use: adabin, with: ¦{scale: {start: 1}}}",
            'scheme "adabin": scale has no part',
        ),
        (
            "{id: ¦a.b, match: {kernel: 1}, use: keep}",
            'id is "a.b"; expected a word without blanks, "." and "="',
        ),
        ("¦7", "this is 7; expected a mapping"),
        (
            "{id: a, match: {kernel: 1}, use: keep}\n  - {id: ¦a, match: {kernel: 1}, use: keep}",
            "duplicate id",
        ),
    ],
)
def test_fault_in_a_rule_has_a_place_and_a_way_out(rule: str, message: str) -> None:
    assert_fault(f"{HEAD}  - {rule}\n", message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("¦rule: []", 'unknown key "rule" (did you mean "rules"?)'),
        ("rules: ¦{}", "rules is a mapping; expected a list"),
        ("name: ¦my rules", 'name is "my rules"; expected a word'),
        ("extends: ¦adabim", 'there is no rule set and no file "adabim" (did you mean "adabin"?)'),
        ("defaults: {¦input: 3}", 'unknown key "input" (did you mean "input_shape"?)'),
        ("¦scheme: {norm: missing}", "a scheme needs a weight binarizer or an input binarizer"),
        ("scheme: {weight: ¦adabin.AdaptivWeight}", '(did you mean "adabin.AdaptiveWeight"?)'),
        ("scheme: {weight: ¦3}", "weight is 3; expected the name of a part"),
        (
            "scheme: {weight: {part: bnn.SteSign, ¦clp: 3}}",
            'unknown option of "bnn.SteSign": "clp" (did you mean',
        ),
        ("scheme: {weight: {part: bnn.SteSign, ¦binarizer: bnn.SteSign}}", "names the part a second time"),
        (
            "scheme: {input: {part: adabin.AdaptiveInput, estimator: ¦irnet.Edee}}",
            'there is no part "irnet.Edee" (did you mean "irnet.Ede"?)',
        ),
        (
            "scheme: {nonlinearity: {part: adabin.Maxout, position: ¦after}}",
            'position is "after"; expected after_add',
        ),
        ("scheme: {clip: ¦[1, -1]}", "clip is a list; expected two numbers, the lower one first"),
        ("scheme: {pad_value: ¦2}", "pad_value is 2; expected 0, 1 or -1"),
        ("scheme: {training: {¦epohcs: 3}}", 'unknown key "epohcs" (did you mean "epochs"?)'),
        ("scheme: {schedule: [¦{target: input}]}", "kind is empty; expected a word"),
        ("schemes: {¦keep: {weight: bnn.SteSign}}", 'a scheme cannot be called "keep"'),
    ],
)
def test_fault_in_a_file_has_a_place_and_a_way_out(line: str, message: str) -> None:
    assert_fault(f"schema: 1\n{line}\n", message)


def test_schema_version_is_asked_for() -> None:
    assert first_line("rules: []") == '1:1  missing key "schema"'
    assert first_line("schema: 2").startswith("1:9  schema is 2; expected 1")


def test_message_shows_the_lines_around_the_fault() -> None:
    text = f'{HEAD}  - match:\n      name: "layer1.*"\n      kernal: 1\n    use: keep\n'
    with pytest.raises(RuleError) as caught:
        load_rule_set(rules=RuleText(text, "rules.yaml"))
    assert str(caught.value) == (
        'rules.yaml:5:7  unknown selector "kernal" (did you mean "kernel"?)\n'
        '    4 |       name: "layer1.*"\n'
        "    5 |       kernal: 1\n"
        "      |       ^"
    )


def test_python_data_has_the_same_faults_without_lines() -> None:
    with pytest.raises(RuleError, match=r'^rules: rules\[0\]\.match\.kernal: unknown selector "kernal"'):
        load_rule_set(rules={"rules": [{"match": {"kernal": 1}, "use": "keep"}]})


def test_editor_schema_is_valid_draft_7() -> None:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in json.dumps(schema)


@pytest.mark.parametrize("name", builtin_rule_sets())
def test_editor_schema_accepts_every_shipped_file(name: str) -> None:
    text = rule_file(name).read_text(encoding="utf-8")
    jsonschema.Draft7Validator(json_schema()).validate(YAML(typ="safe", pure=True).load(text))
    assert text.startswith("# yaml-language-server: $schema=rules.schema.json\n")


def test_editor_schema_beside_the_shipped_files_is_up_to_date() -> None:
    beside = rule_file("adabin").with_name("rules.schema.json")
    assert json.loads(beside.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize(
    "data",
    [
        {"rules": []},
        {"schema": 1, "rule": []},
        {"schema": 1, "rules": [{"match": {"kernal": 1}, "use": "keep"}]},
        {"schema": 1, "rules": [{"match": {"kind": "convv"}, "use": "keep"}]},
        {"schema": 1, "scheme": {"norm": "maybe"}},
        {"schema": 1, "scheme": {"training": {"epohcs": 3}}},
    ],
)
def test_editor_schema_refuses_what_the_program_refuses(data: dict[str, Any]) -> None:
    assert not jsonschema.Draft7Validator(json_schema()).is_valid(data)
    with pytest.raises(BinarizeError):
        load_rule_set(rules=RuleText(json.dumps(data)))
