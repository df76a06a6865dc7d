"""Parts and schemes: data that becomes modules, and patches on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from binarize.errors import RuleError
from binarize.schemes.part import Part, is_part
from binarize.schemes.scheme import Scheme
from binarize.schemes.shipped import part_options, shipped_parts

EDE = {"part": "irnet.Ede", "t": 0.5, "k": 2}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bireal.ApproxSign", True),
        ("torch.nn.Hardtanh", True),
        ("paper", False),
        ("1.Foo", False),
        ("Foo", False),
        ("a.b", False),
        (EDE, True),
        ({"binarizer": "x.Y"}, True),
        ({"t": 1}, False),
        (3, False),
    ],
)
def test_part_is_known_by_its_form(value: object, expected: bool) -> None:
    assert is_part(value) is expected


@pytest.mark.parametrize(
    "data", ["bireal.ApproxSign", EDE, {"part": "adabin.AdaptiveWeight", "estimator": EDE}]
)
def test_part_json_round_trip(data: object) -> None:
    assert Part.from_json(data).to_json() == data


def test_part_builds_with_arguments_nested_parts_and_context() -> None:
    built = Part.from_json({"binarizer": "adabin.AdaptiveWeight", "estimator": EDE}).build(axis=1, channels=7)
    assert built.axis == 1
    assert built.estimator.t == 0.5
    maxout = Part("adabin.Maxout", {"neg": 0.5}).build(channels=3, channel_dim=-1, axis=0)
    assert maxout(torch.full((2, 3), -1.0)).tolist() == [[-0.5] * 3] * 2
    assert isinstance(Part("torch.nn.Hardtanh").build(channels=3), nn.Hardtanh)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Part("adabin.Maxot"), "has no nn.Module 'Maxot'; did you mean \"Maxout\"?"),
        (Part("torch.nn.Linear"), "torch.nn has no nn.Module 'Linear' that is a part"),
        (Part("adabin.Maxout", {"ned": 1}), "takes no 'ned'; did you mean \"neg\"?"),
        (Part("adabin.Maxout"), "cannot be built"),
    ],
)
def test_part_that_cannot_be_built_says_why(part: Part, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        part.build()
    assert message in str(caught.value)


def test_part_is_shipped_where_all_of_it_is() -> None:
    assert Part.from_json({"part": "adabin.AdaptiveWeight", "estimator": EDE}).shipped
    assert Part("torch.nn.Hardtanh").shipped
    assert not Part("mine.Sign").shipped
    assert not Part("torch.hub.Thing").shipped
    assert not Part.from_json({"part": "adabin.AdaptiveWeight", "estimator": "mine.Sign"}).shipped


def test_parts_are_listed_from_the_sources() -> None:
    listed = shipped_parts()
    assert "adabin.AdaptiveWeight" in listed
    assert not [name for name in listed if "._" in name]
    assert part_options("adabin.Maxout") == ["channels", "channel_dim", "neg", "pos"]
    assert part_options("torch.nn.Hardtanh") is None
    for name in listed:
        module, _, cls = name.rpartition(".")
        __import__(f"binarize.binarizers.{module}")
        assert issubclass(getattr(sys.modules[f"binarize.binarizers.{module}"], cls), nn.Module), name


def test_rules_are_read_without_torch() -> None:
    code = (
        "import sys; from binarize.rules import load_rule_set; rules = load_rule_set('adabin'); rules.to_yaml();"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SCHEME = Scheme(
    "mine",
    weight=Part.from_json({"part": "adabin.AdaptiveWeight", "estimator": EDE}),
    input=Part("bireal.ApproxSign"),
    nonlinearity=Part("adabin.Maxout"),
    position="before_add",
    clip=(-1.0, 1.0),
    schedule=({"target": "input", "kind": "ede"},),
    training={"lr": 0.1, "epochs": 3},
)


def test_scheme_json_round_trip() -> None:
    data = SCHEME.to_json()
    assert data["nonlinearity"] == {"part": "adabin.Maxout", "position": "before_add"}
    assert Scheme.from_json("mine", data) == SCHEME
    assert Scheme.from_json("empty", Scheme("empty").to_json()) == Scheme("empty")


def test_scheme_patch_replaces_named_parts_and_changes_arguments_of_others() -> None:
    patched = SCHEME.patched(
        {
            "weight": {"estimator": {"t": 9}},
            "input": {"part": "bnn.SteSign", "clip": 2},
            "nonlinearity": {"neg": 0.0},
            "training": {"lr": 1},
            "clip": None,
            "norm": "never",
        }
    )
    assert patched.weight == Part.from_json({"part": "adabin.AdaptiveWeight", "estimator": {**EDE, "t": 9}})
    assert patched.input == Part("bnn.SteSign", {"clip": 2})
    assert (patched.nonlinearity, patched.position) == (Part("adabin.Maxout", {"neg": 0.0}), "before_add")
    assert patched.training == {"lr": 1, "epochs": 3}
    assert (patched.clip, patched.norm) == (None, "never")
    assert SCHEME.patched({}) == SCHEME


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"wieght": None}, "unknown key 'wieght'; did you mean \"weight\"?"),
        ({"scale": {"start": 1}}, "scale has no part to change"),
        ({"weight": {"estimater": None}}, "takes no 'estimater'; did you mean \"estimator\"?"),
    ],
)
def test_scheme_patch_that_fits_nothing_is_refused(patch: dict[str, object], message: str) -> None:
    with pytest.raises(RuleError) as caught:
        SCHEME.patched(patch)
    assert message in str(caught.value)


def test_scheme_without_nonlinearity_has_no_place_for_it() -> None:
    assert Scheme("a", position="before_add") == Scheme("a")
