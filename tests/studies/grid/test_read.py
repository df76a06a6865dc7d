"""Grids: what they expand to, what tells trials apart, and where a mistake in them is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from binarize.errors import RuleError, UsageError
from binarize.studies.grid.expand import chosen, trials_of
from binarize.studies.grid.read import Grid, read_grid
from binarize.studies.grid.trial import Trial
from binarize.trust import trusting

NETWORK = "binarize.demo.digits:DigitsVGG"
STEPS = {
    "WD": {"weight_decay": 1e-4},
    "LS": {"label_smoothing": 0.1},
    "RA": {"rand_augment": "rand-m9"},
    "DP": {"dropout": 0.2},
}


def grid(**keys: Any) -> Grid:
    settings = {"model": NETWORK, "data": "digits", **keys.pop("settings", {})}
    return read_grid({"schema": 1, "settings": settings, **keys})


def names(found: Grid) -> list[str]:
    return [trial.name for trial in trials_of(found)]


def trial(found: Grid, name: str) -> Trial:
    return next(one for one in trials_of(found) if one.name == name)


def test_there_are_as_many_trials_as_the_product_of_axes_and_seeds_and_a_float_network_a_seed() -> None:
    axes = {"scheme": ["adabin", "bireal", "xnor"], "length": {"short": {"epochs": 1}, "long": {"epochs": 2}}}
    found = trials_of(grid(axes=axes, seeds=[0, 1]))
    assert sum(one.kind == "binary" for one in found) == 3 * 2 * 2
    assert [one.name for one in found if one.kind == "float"] == ["float/seed0", "float/seed1"]
    assert len({one.id for one in found}) == len(found) == 14


def test_a_chain_is_cumulative() -> None:
    found = grid(steps=STEPS, chains={"gain": ["none", "+WD", "+LS", "+RA", "-LS", "+LS+DP", "none"][:6]})
    steps = [c.settings for c in found.axes[0].choices]
    wd, ls, ra, dp = STEPS["WD"], STEPS["LS"], STEPS["RA"], STEPS["DP"]
    assert steps == [{}, wd, {**wd, **ls}, {**wd, **ls, **ra}, {**wd, **ra}, {**wd, **ra, **ls, **dp}]
    binary = [one for one in names(found) if not one.startswith("float")]
    assert binary == [f"{step}/seed0" for step in ("none", "+WD", "+LS", "+RA", "-LS", "+LS+DP")]


def test_float_binary_and_distilled_rows_of_a_chain_start_from_one_float_network() -> None:
    found = trials_of(
        grid(axes={"train": ["float", "binary", "distilled"]}, steps=STEPS, chains={"gain": ["none", "+WD"]})
    )
    assert len(found) == 6
    plain = next(one for one in found if one.name == "float/none/seed0")
    assert {one.base.id for one in found if one.base is not None} == {plain.id}
    assert {one.name: one.get("teacher") for one in found if one.base is not None} == {
        "binary/none/seed0": ["none"],
        "binary/+WD/seed0": ["none"],
        "distilled/none/seed0": ["source"],
        "distilled/+WD/seed0": ["source"],
    }


def test_float_rows_that_differ_only_in_what_is_binary_are_one() -> None:
    found = grid(axes={"train": ["float", "binary"], "scheme": ["adabin", "bireal"], "shortcuts": ["never"]})
    assert names(found) == [
        "float/seed0",
        "binary/adabin/shortcuts=never/seed0",
        "binary/bireal/shortcuts=never/seed0",
    ]


def test_the_same_settings_and_seed_are_the_same_trial_whatever_it_is_called() -> None:
    one = trial(grid(settings={"scheme": "adabin", "epochs": 2}), "binary/seed0")
    two = trial(grid(axes={"what": {"mine": {"scheme": "adabin"}}}, settings={"epochs": 2}), "mine/seed0")
    assert one.id == two.id and one.home(Path()) == two.home(Path())
    default = trial(grid(settings={"epochs": 2, "dropout": 0, "shortcuts": "never"}), "binary/seed0")
    assert default.id != one.id  # it has a rule set of its own
    others = [
        grid(settings={"scheme": "adabin", "epochs": 2}, seeds=[1]),
        grid(settings={"scheme": "adabin", "epochs": 3}),
        grid(settings={"scheme": "bireal", "epochs": 2}),
        grid(settings={"scheme": "adabin", "epochs": 2}, float={"epochs": 1}),
        grid(settings={"scheme": "adabin", "epochs": 2}, float="none"),
    ]
    assert len({one.id, *(trials_of(other)[-1].id for other in others)}) == 6


def test_a_setting_with_its_default_says_nothing() -> None:
    plain, said = (
        grid(),
        grid(settings={"dropout": 0, "start": "float", "precision": 32, "rand_augment": "none"}),
    )
    assert [one.id for one in trials_of(plain)] == [one.id for one in trials_of(said)]


def test_a_changed_file_is_another_trial(tmp_path: Path) -> None:
    network, rules = tmp_path / "net.py", tmp_path / "mine.yaml"
    network.write_text("from binarize.demo.digits import DigitsVGG as make\n")
    rules.write_text("schema: 1\nextends: bireal\n")
    file = tmp_path / "grid.yaml"
    file.write_text("schema: 1\nsettings: {model: 'net.py:make', data: digits, scheme: mine.yaml}\n")

    def trials() -> list[Trial]:
        with trusting(network):
            return trials_of(read_grid(file))

    [_, first] = trials()
    assert first.place("model") == f"{network}:make"
    network.write_text(network.read_text() + "# another\n")
    [_, second] = trials()
    rules.write_text("# a comment is no rule\nschema: 1\nextends: bireal\n")
    [_, third] = trials()
    rules.write_text("schema: 1\nextends: bireal\nrules: [{match: {params: '<9999'}, use: keep}]\n")
    [_, fourth] = trials()
    assert second.id == third.id and len({first.id, second.id, fourth.id}) == 3


def test_pruned_float_rows_start_from_the_whole_network() -> None:
    found = grid(axes={"train": ["float", "binary"], "prune": [0, 0.5]})
    bases = {one.name: one.base and one.base.name for one in trials_of(found)}
    assert bases == {
        "float/prune=0/seed0": None,
        "binary/prune=0/seed0": "float/seed0",
        "float/prune=0.5/seed0": "float/seed0",
        "binary/prune=0.5/seed0": "float/seed0",
    }


def test_only_takes_the_float_networks_along() -> None:
    found = trials_of(grid(axes={"scheme": ["adabin", "bireal"]}, seeds=[0, 1]))
    assert [one.name for one in chosen(found, "bireal/seed1")] == ["float/seed1", "bireal/seed1"]
    assert len(chosen(found, "bireal")) == 4
    with pytest.raises(UsageError, match='no trial has such a name; did you mean "bireal"'):
        chosen(found, "bireel")


def test_changes_go_to_every_trial_or_to_an_axis() -> None:
    found = grid(axes={"scheme": ["adabin", "bireal"]}, float={"epochs": 9}).changed(
        ["epochs=1", "scheme=[xnor]", "seeds=[4, 5]", "validation=0.2"]
    )
    assert names(found) == ["float/seed4", "float/seed5", "xnor/seed4", "xnor/seed5"]
    assert {(one.get("epochs"), one.get("validation")) for one in trials_of(found)} == {(1, 0.2)}
    with pytest.raises(RuleError, match='no setting "epoch"; did you mean "epochs"'):
        found.changed(["epoch=1"])
    with pytest.raises(RuleError, match="epochs is 0; expected 1 or more"):
        found.changed(["epochs=0"])
    with pytest.raises(UsageError, match="expected key=VALUE"):
        found.changed(["epochs"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("axes: {shceme: [a]}", 'g.yaml:2:8  unknown setting "shceme" (did you mean "scheme"?)'),
        ("settings: {epochs: 0}", "g.yaml:2:20  epochs is 0; expected 1 or more"),
        ("settings: {scheme: adabn}", 'g.yaml:2:20  there is no scheme "adabn"; did you mean "adabin"?'),
        ("settings: {scheme: no.yaml}", "g.yaml:2:20  scheme no.yaml: no such file"),
        ("axes: {weight_decay: [0, 20]}", "g.yaml:2:26  weight_decay is 20; expected a number from 0 to 10"),
        ("axes: {dropout: [0, 1]}", "g.yaml:2:21  dropout is 1; expected a share"),
        ("axes: {lr: 3}", "g.yaml:2:12  lr is 3; expected a list"),
        ("axes: {a: {b: {lrr: 3}}}", 'g.yaml:2:16  unknown setting "lrr" (did you mean "lr"?)'),
        ("float: {prune: 0.3}", 'g.yaml:2:9  unknown setting "prune"'),
        ("float: non", 'g.yaml:2:8  float is "non"; expected none'),
        ("chains: {c: [+WD]}", 'g.yaml:2:14  there is no step "WD"'),
        (
            "steps: {WD: {lr: 1}}\nchains: {c: [none, -WD]}",
            'g.yaml:3:20  "-WD": WD is not there to take away',
        ),
        ("steps: {WD: {lr: 1}}\nchains: {c: [+WD, +WD]}", 'g.yaml:3:19  "+WD": WD is there already'),
        ("steps: {WD: {lr: 1}}\nchains: {c: [WD]}", 'g.yaml:3:14  "WD" is no entry of a chain'),
        ("chains: {lr: [none]}\naxes: {lr: [1]}", "g.yaml:2:10  lr is an axis already"),
        ("settings: {rand_augment: rnad}", 'g.yaml:2:26  augmentation "rnad" is none of'),
        ("seed: [1]", 'g.yaml:2:1  unknown key "seed" (did you mean "seeds"?)'),
        ("seeds: 3", "g.yaml:2:8  seeds is 3; expected a list"),
        ("machine: {cpu: 1}", 'g.yaml:2:11  unknown key "cpu" (did you mean "cpus"?)'),
    ],
)
def test_a_mistake_is_shown_in_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(f"schema: 1\n{text}\n")
    with pytest.raises(RuleError) as caught:
        read_grid(file)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"axes": {"train": ["distilled"], "teacher": ["none"]}}, "distilled needs a teacher"),
        ({"axes": {"teacher": [["a/b"], ["a.b"]]}}, 'two trials are called "a.b/seed0"'),
        ({"settings": {"keep_first": -1}}, "keep_first is -1"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises((RuleError, UsageError), match=message):
        trials_of(grid(**keys))


def test_model_and_data_have_to_be_named() -> None:
    with pytest.raises(UsageError, match="no model is named"):
        trials_of(read_grid({"schema": 1}))
    with pytest.raises(UsageError, match="no data is named"):
        trials_of(read_grid({"schema": 1, "settings": {"model": NETWORK}}))
