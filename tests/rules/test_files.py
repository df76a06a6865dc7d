"""Rule files and what they extend."""

from __future__ import annotations

from pathlib import Path

import pytest

from binarize.analysis.layer import Layer
from binarize.errors import RuleError
from binarize.rules.files import builtin_rule_sets, rule_file
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import Rule, RuleSet

CONV = Layer(name="layer4.0.conv1", type="Conv2d", kind="conv", order=1, kernel=(3, 3), params=9216)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"schema: 1\n{text}", encoding="utf-8")
    return path


def deciding(rules: RuleSet, layer: Layer = CONV) -> Rule:
    rule = rules.decide(layer)
    assert rule is not None
    return rule


def test_extended_rules_come_first_and_later_ones_decide(tmp_path: Path) -> None:
    path = write(
        tmp_path, "my.yaml", "extends: bireal\nrules:\n  - {id: s, match: {name: layer4}, use: adabin}\n"
    )
    rules = load_rule_set(rules=path)
    assert rules.name == "my"
    assert rules.rules[0].id == "body"
    rule = deciding(rules)
    assert (rule.id, rule.where, rule.scheme) == ("s", "my.yaml:4", "adabin")
    assert rules.scheme(rule).weight == load_rule_set("adabin").schemes["adabin"].weight


def test_relative_path_starts_at_the_extending_file(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "rules: [{match: {kind: conv}, use: bnn}]")
    path = write(tmp_path, "sub/my.yaml", "extends: ../base.yaml")
    assert deciding(load_rule_set(rules=str(path))).where == "base.yaml:2"


def test_ids_stay_unique_and_the_last_keeps_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path, "my.yaml", "extends: [adabin, bireal]\nrules: [{id: body, match: {name: x}, use: keep}]"
    )
    ids = [rule.id for rule in load_rule_set(rules=path).rules]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "adabin/body"
    assert ids[-1] == "body"
    assert "bireal/body" in ids


def test_scheme_block_of_an_extending_file_changes_the_extended_scheme(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", "extends: adabin\nscheme: {shortcut: every, input: {form: code}}")
    rules = load_rule_set(rules=path)
    rule = deciding(rules)
    scheme, base = rules.scheme(rule), load_rule_set("adabin").schemes["adabin"]
    assert (rule.scheme, scheme.name, scheme.shortcut) == ("mine", "mine", "every")
    assert scheme.input == base.input.patched({"form": "code"})
    assert (scheme.weight, scheme.paper, scheme.training) == (base.weight, base.paper, base.training)
    assert list(rules.schemes) == ["mine"]


def test_weights_only_follows_the_changed_scheme(tmp_path: Path) -> None:
    write(
        tmp_path,
        "base.yaml",
        "scheme: {weight: bnn.SteSign}\nrules: [{match: {kind: conv}, use: 'weights-only:base'}]",
    )
    rules = load_rule_set(rules=write(tmp_path, "my.yaml", "extends: base.yaml\nscheme: {clip: [-1, 1]}"))
    assert deciding(rules).use == "weights-only:my"


def test_scheme_block_over_several_schemes_asks_which(tmp_path: Path) -> None:
    path = write(tmp_path, "my.yaml", "extends: [x.yaml]\nscheme: {shortcut: every}")
    write(tmp_path, "x.yaml", "extends: [adabin, bireal]")
    with pytest.raises(
        RuleError, match=r"my\.yaml:3:1  which of the extended schemes does this change: adabin, bireal"
    ):
        load_rule_set(rules=path)


def test_schemes_block_changes_a_scheme_in_place(tmp_path: Path) -> None:
    text = "extends: [adabin, bireal]\nschemes: {adabin: {norm: never}, new: {weight: bnn.SteSign}}"
    rules = load_rule_set(rules=write(tmp_path, "my.yaml", text))
    assert rules.schemes["adabin"].norm == "never"
    assert rules.schemes["new"].input is None


def test_extends_in_a_circle_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "extends: b.yaml")
    write(tmp_path, "b.yaml", "extends: a.yaml")
    with pytest.raises(
        RuleError, match=r"b\.yaml:2:10  extends goes round in a circle: a\.yaml -> b\.yaml -> a\.yaml"
    ):
        load_rule_set(rules=path)
    with pytest.raises(RuleError, match=r"circle: c\.yaml -> c\.yaml"):
        load_rule_set(rules=write(tmp_path, "c.yaml", "extends: c.yaml"))


def test_a_long_row_of_files_is_stopped(tmp_path: Path) -> None:
    for i in range(80):
        write(tmp_path, f"f{i}.yaml", f"extends: f{i + 1}.yaml")
    with pytest.raises(RuleError, match="more than 64 files extend each other in a row"):
        load_rule_set(rules=tmp_path / "f0.yaml")
    write(tmp_path, "f40.yaml", "extends: bireal")
    assert load_rule_set(rules=tmp_path / "f0.yaml").rules


def test_files_that_multiply_are_stopped(tmp_path: Path) -> None:
    write(tmp_path, "f0.yaml", "rules: [{match: {kind: conv}, use: keep}]")
    for i in range(1, 30):
        write(tmp_path, f"f{i}.yaml", f"extends: [f{i - 1}.yaml, f{i - 1}.yaml]")
    with pytest.raises(RuleError, match="more than 2000 rules"):
        load_rule_set(rules=tmp_path / "f29.yaml")


def test_fault_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "rools: []")
    with pytest.raises(RuleError, match=r'base\.yaml:2:1  unknown key "rools"') as caught:
        load_rule_set(rules=write(tmp_path, "my.yaml", "extends: base.yaml"))
    assert "my.yaml" not in str(caught.value)


def test_missing_extended_file_is_reported_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"my\.yaml:2:10  .*none\.yaml: no such file or directory"):
        load_rule_set(rules=write(tmp_path, "my.yaml", "extends: none.yaml"))


@pytest.mark.parametrize("name", ["birael", "a\0b", "x" * 5000, "", "none/at/all", "none.yaml"])
def test_rule_set_that_is_not_there(name: str) -> None:
    with pytest.raises(RuleError):
        load_rule_set(rules=name)


def test_file_name_that_is_no_word_becomes_one(tmp_path: Path) -> None:
    assert load_rule_set(rules=write(tmp_path, "my rules.v2.yaml", "extends: bnn")).name == "my-rules-v2"


def test_rules_without_id_are_numbered(tmp_path: Path) -> None:
    text = "rules: [{match: {in: 1}, use: bnn}, {id: rule1, match: {in: 2}, use: keep}, {match: {in: 3}, use: keep}]"
    rules = load_rule_set(rules=write(tmp_path, "my.yaml", text))
    assert [rule.id for rule in rules.rules] == ["rule1-2", "rule1", "rule3"]


def test_rule_file_gives_the_path_and_the_nearest_name() -> None:
    assert [rule_file(name).stem for name in builtin_rule_sets()] == builtin_rule_sets()
    with pytest.raises(RuleError, match='there is no rule set "adabim"; did you mean "adabin"'):
        rule_file("adabim")
