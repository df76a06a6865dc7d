"""No accepted key is read by nobody: of every key two values give two plans, networks or trainings."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import nets
import pytest
import torch

import binarize
from binarize.analysis.analyse import analyse
from binarize.analysis.layer import Layer
from binarize.capture import capture
from binarize.rules.bind import bind
from binarize.rules.load import load_rule_set
from binarize.rules.schema import RULE_KEYS, _File, _Match, _Recipe, _Scheme, _Stage
from binarize.training.loop.optimizers import latent_ranges
from binarize.training.loop.schedules import Schedules
from binarize.training.recipe import recipe_of

EDE: dict[str, Any] = {
    "binarizer": "irnet.LibraWeight",
    "estimator": {"part": "irnet.Ede", "t": 0.1, "k": 10},
}
SCHEME: dict[str, Any] = {"weight": EDE, "input": "bireal.ApproxSign", "nonlinearity": "adabin.Maxout"}
RULE: dict[str, Any] = {"id": "body", "match": {"kind": ["conv", "linear"]}, "use": "own"}
ENDS: dict[str, Any] = {"id": "ends", "match": {"position": ["first", "last"]}, "use": "keep"}
PROJECTIONS: dict[str, Any] = {"id": "projections", "match": {"downsample": True}, "use": "keep"}

# What only people read.
FOR_PEOPLE = {"paper"}


def keys_of(model: Any) -> set[str]:
    return {info.alias for info in model.model_fields.values()}


def rules(scheme: dict[str, Any], rule: dict[str, Any], **file: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "own",
        "scheme": {**SCHEME, **scheme},
        "rules": [{**RULE, **rule}, PROJECTIONS, ENDS],
        **file,
    }


def made(net: Any, said: dict[str, Any]) -> tuple[Any, ...]:
    """All that a rule set decides about a network, its training included; its own text is no part of it."""
    return _made(net, json.dumps(said))


@cache
def _made(net: Any, text: str) -> tuple[Any, ...]:
    said = json.loads(text)
    model: Any = binarize.convert(
        nets.seeded(net), rules=said, example_input=nets.pictures(2), calibrate=False
    )
    plan = model._binarize.plan.to_json()
    del plan["schemes"], plan["capture"]["float_weights"]
    ranges = [(low, high) for _, low, high in latent_ranges(model)]
    recipes = recipe_of(model), recipe_of(model, published=True)
    buffers = []
    schedules = Schedules(model)
    for progress in (0.0, 0.5):
        schedules.set(progress)
        buffers.append({name: value.tolist() for name, value in model.named_buffers() if value.numel() == 1})
    with torch.no_grad():
        return plan, str(model), model(nets.pictures(2)).tolist(), ranges, recipes, buffers


SCHEMES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("description", ("one", "two"), {}),
        ("weight", ("bireal.ScaledSign", "bnn.SteSign"), {}),
        ("input", ("bireal.ApproxSign", "adabin.AdaptiveInput"), {}),
        ("scale", (None, "xnorpp.ChannelScale"), {}),
        ("nonlinearity", ("adabin.Maxout", "reactnet.RPReLU"), {}),
        (
            "nonlinearity",
            ({"part": "adabin.Maxout", "position": "after_add"}, {"part": "adabin.Maxout", "position": "before_add"}),
            {"shortcut": "missing"},
        ),
        ("norm", ("missing", "never", "before_sign"), {}),
        ("shortcut", ("never", "missing"), {}),
    ("shortcut", ("never", "missing", "every"), {"norm": "missing"}),
    ("shortcut", ("never", "residual"), {"nonlinearity": "none"}),
    ("shortcut", ("every", "residual"), {"pad_value": 0}),
        ("projection", ("none", "conv1x1"), {"shortcut": "missing"}),
        ("shortcut_scale", ("none", "channel"), {"shortcut": "missing"}),
        ("downsample", ("strided", "pool", "binary"), {}),
        ("first_activation", ("replace", "drop"), {}),
        ("last_activation", ("keep", "replace"), {}),
        ("head_norm", ("never", "missing"), {}),
        ("pad_value", (0, 1, -1), {}),
        ("clip", (None, [-1, 1]), {}),
        (
            "schedule",
            ([], [{"target": "weight.estimator", "kind": "ede", "t_min": 0.001, "t_max": 10}]),
            {},
        ),
        ("training", ({"epochs": 1}, {"epochs": 2}), {}),
        ("training_paper", ({"epochs": 1}, {"epochs": 2}), {}),
]  # fmt: skip


# Networks in which a key has something to decide, where a plain chain has not.
NETS: dict[tuple[str, ...], Any] = {
    ("projection",): nets.Geometry,
    ("shortcut", "norm"): nets.Dense,
    ("shortcut", "nonlinearity"): nets.BasicBlocks,
    ("downsample",): nets.BasicBlocks,
    ("head_norm",): nets.BasicBlocks,
}


@pytest.mark.parametrize("key, values, more", SCHEMES)
def test_every_key_of_a_scheme_changes_what_is_made(
    key: str, values: tuple[Any, ...], more: dict[str, Any]
) -> None:
    net = NETS.get((key, *more), NETS.get((key,), nets.ConvRelu))
    found = [made(net, rules({**more, key: value}, {})) for value in values]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


def test_no_key_of_a_scheme_was_left_out() -> None:
    assert {key for key, _, _ in SCHEMES} == keys_of(_Scheme) - FOR_PEOPLE


RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "id": ({"id": "one"}, {"id": "two"}),
    "match": ({"match": {"kind": "conv"}}, {"match": {"kind": "linear"}}),
    "use": ({"use": "own"}, {"use": "weights-only:own"}),
    "with": ({"with": {"pad_value": 1}}, {"with": {"pad_value": 0}}),
    "shortcut": ({"shortcut": "never"}, {"shortcut": "missing"}),
    "norm": ({"norm": "never"}, {"norm": "missing"}),
    "downsample": ({"downsample": "strided"}, {"downsample": "pool"}),
    "activation": ({"activation": "auto"}, {"activation": "keep"}),
    "why": ({"why": "one"}, {"why": "two"}),
    "optional": ({}, {}),
}


@pytest.mark.parametrize("key", RULE_KEYS)
def test_every_key_of_a_rule_changes_what_is_made(key: str) -> None:
    if key == "optional":
        lost = {"id": "lost", "match": {"name": "nothing"}, "use": "keep"}
        model = nets.ConvRelu()
        graph = analyse(capture(model, model.arguments()))
        said = [rules({}, {}) | {"rules": [RULE, {**lost, "optional": flag}]} for flag in (True, False)]
        assert [len(load_rule_set(rules=one).unmatched(graph.layers)) for one in said] == [0, 1]
        return
    net = NETS.get((key,), nets.ConvRelu)
    one, other = (made(net, rules({}, rule)) for rule in RULES[key])
    assert one != other


def test_every_word_for_an_activation_gives_another_network() -> None:
    found = [
        made(nets.ConvRelu, rules({}, {"activation": word}))[1:3]
        for word in ("auto", "keep", "none", "hardtanh", "prelu", "rprelu", "reactnet.RPReLU")
    ]
    # A short name and the part that it stands for are the same.
    assert found.pop() == found[-1]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
    assert made(nets.ConvRelu, rules({}, {"activation": "maxout"}))[1:3] == found[0]


MATCHES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "name": ("ConvRelu", {"name": "features.2"}, {"name": "features.5"}),
    "type": ("ConvRelu", {"type": "Conv2d"}, {"type": "Linear"}),
    "subclasses": (
        "Subclasses", {"type": "Conv2d", "subclasses": True}, {"type": "Conv2d", "subclasses": False}
    ),
    "kind": ("ConvRelu", {"kind": "conv"}, {"kind": "linear"}),
    "position": ("ConvRelu", {"position": "first"}, {"position": "last"}),
    "kernel": ("Geometry", {"kernel": 1}, {"kernel": 3}),
    "stride": ("Geometry", {"stride": 1}, {"stride": 2}),
    "dilation": ("Geometry", {"dilation": 1}, {"dilation": 2}),
    "groups": ("Geometry", {"groups": 1}, {"groups": ">1"}),
    "in": ("ConvRelu", {"in": 3}, {"in": ">3"}),
    "out": ("ConvRelu", {"out": 10}, {"out": ">10"}),
    "params": ("ConvRelu", {"params": "<1000"}, {"params": ">=1000"}),
    "calls": ("CalledTwice", {"calls": 1}, {"calls": 2}),
    "has_skip": ("BasicBlocks", {"has_skip": True}, {"has_skip": False}),
    "skip": ("BasicBlocks", {"skip": "none"}, {"skip": "enclosing"}),
    "inside": ("BasicBlocks", {"inside": "BasicBlock"}, {"inside": "Head"}),
    "before": ("ConvRelu", {"before": "ReLU"}, {"before": "Linear"}),
    "after": ("ConvRelu", {"after": "ReLU"}, {"after": "MaxPool2d"}),
    "downsample": ("BasicBlocks", {"downsample": True}, {"downsample": False}),
    "gate": ("SqueezeExcite", {"gate": True}, {"gate": False}),
    "input_sign": ("ConvRelu", {"input_sign": "nonneg"}, {"input_sign": "any"}),
    "first": ("ConvRelu", {"first": 1}, {"first": 2}),
    "last": ("ConvRelu", {"last": 1}, {"last": 2}),
    "not": ("ConvRelu", {"not": {"kind": "conv"}}, {"not": {"kind": "linear"}}),
    "any": ("ConvRelu", {"any": [{"kind": "conv"}]}, {"any": [{"kind": "linear"}]}),
}  # fmt: skip


@cache
def layers_of(name: str) -> tuple[Layer, ...]:
    model = nets.ALL[name]()
    return analyse(capture(model, model.arguments(), model.keywords())).layers


@pytest.mark.parametrize("key", sorted(keys_of(_Match)))
def test_every_selector_chooses_other_layers_by_another_value(key: str) -> None:
    name, *matches = MATCHES[key]
    layers = layers_of(name)
    chosen = []
    for match in matches:
        found = bind(load_rule_set(rules=rules({}, {"match": match})), layers).rules[0]
        chosen.append([layer.name for layer in layers if found.matches(layer)])
    assert chosen[0] != chosen[1]


FILES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "name": ({"name": "own"}, {"name": "other", "rules": [{**RULE, "use": "other"}, ENDS]}),
    "extends": ({"extends": "bnn"}, {"extends": "bireal"}),
    "scheme": ({}, {"scheme": {**SCHEME, "weight": "bnn.SteSign"}}),
    "schemes": tuple(
        {"schemes": {"mine": {**SCHEME, "weight": part}}, "rules": [{**RULE, "use": "mine"}, ENDS]}
        for part in ("bnn.SteSign", "bireal.ScaledSign")
    ),  # type: ignore[dict-item]
    "rules": ({}, {"rules": [RULE]}),
}


@pytest.mark.parametrize("key", FILES)
def test_every_key_of_a_file_changes_what_is_made(key: str) -> None:
    said = [{**rules({}, {}), **file} for file in FILES[key]]
    if key == "extends":
        # Its own scheme and rules would say all that the extended ones do.
        said = [{"schema": 1, **file} for file in FILES[key]]
    one, other = (made(nets.ConvRelu, file) for file in said)
    assert one != other


def test_the_default_of_a_file_is_the_shape_that_is_tried() -> None:
    shapes = [[2, 3, 16, 16], [2, 3, 19, 19]]
    said = [rules({}, {}, defaults={"input_shape": shape}) for shape in shapes]
    found = [binarize.plan(nets.ConvRelu(), rules=one).decisions[0].layer.in_shape for one in said]
    assert [list(shape) for shape in found] == shapes


def test_no_key_of_a_file_was_left_out() -> None:
    """`schema` has one value; paper and description of a file are text for people."""
    assert keys_of(_File) == {*FILES, "defaults", "schema", "description", *FOR_PEOPLE}
    assert set(RULES) == set(RULE_KEYS) and set(MATCHES) == keys_of(_Match)


@cache
def read_in_training() -> set[str]:
    """Attributes of recipes, and words, that the code of training reads."""
    found: set[str] = set()
    for path in (Path(binarize.__file__).parent / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # A stage that freezes keeps its keys in a record of their own, which asks itself for some of them.
            own = "self" if path.name == "shares.py" else "recipe"
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith(
                ("recipe", "freezing", own)
            ):
                found.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                found.add(str(node.slice.value))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".get", ".pop")):
                found |= {str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


# The data set that a published recipe was used on; a training takes its own.
@pytest.mark.parametrize("key", sorted(({*keys_of(_Recipe)} | keys_of(_Stage)) - {"data"}))
def test_every_key_of_a_recipe_is_read_by_training(key: str) -> None:
    assert key in read_in_training()
