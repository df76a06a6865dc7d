"""Selectors: what each of them says about one layer."""

from __future__ import annotations

from typing import Any

import pytest

from binarize.analysis.layer import Layer
from binarize.rules.match import covers, holds, name_counted, named, strays, test_number
from binarize.rules.name_pattern import pattern
from binarize.rules.rule_set import Rule

# pytest would collect it as a test.
number_satisfies = test_number
del test_number

BASE: dict[str, Any] = {
    "name": "layer2.0.conv1",
    "type": "ScaledStdConv2d",
    "kind": "conv",
    "order": 3,
    "kernel": (3, 3),
    "stride": (2, 1),
    "dilation": (1, 1),
    "in_channels": 64,
    "out_channels": 128,
    "params": 73728,
    "skip": "enclosing",
    "input_sign": "nonneg",
    "preceded_by": ("ReLU",),
    "followed_by": ("BatchNorm2d", "F.relu"),
    "inside": ("ResNet", "Sequential", "BasicBlock"),
    "bases": ("ScaledStdConv2d", "Conv2d"),
}
LAYER = Layer(**BASE)


def layer(**facts: Any) -> Layer:
    return Layer(**{**BASE, **facts})


@pytest.mark.parametrize(
    ("text", "matched", "missed"),
    [
        ("conv1", ["conv1"], ["layer1.conv1", "conv10"]),
        ("layer1", ["layer1", "layer1.0.conv1"], ["layer10.0.conv1", "net.layer1.0"]),
        ("layer1.*", ["layer1.0", "layer1.0.conv1"], ["layer1", "layer2.0"]),
        ("*.conv1", ["a.conv1", "a.conv1.inner"], ["conv1", "a.b.conv1"]),
        ("**.conv1", ["conv1", "a.conv1", "a.b.conv1"], ["a.xconv1"]),
        ("a.**.z", ["a.z", "a.b.z", "a.b.c.z"], ["a.b", "b.z"]),
        ("layer4.**", ["layer4.0", "layer4.0.conv1"], ["layer4", "layer40.0"]),
        ("**", ["a", "a.b"], []),
        ("con**1", ["conv1", "con.v.1"], ["conv2"]),
        ("l?yer", ["layer", "l1yer"], ["lyer", "l.yer"]),
        ("blocks.[0-11].attn", ["blocks.0.attn", "blocks.11.attn"], ["blocks.12.attn", "blocks.01.attn"]),
        ("a.b", ["a.b"], ["axb"]),
        (r"re:.*\.se\..*", ["a.se.fc"], ["a.sea.fc"]),
        ("re:layer1", ["layer1"], ["layer1.0"]),
    ],
)
def test_name_pattern_matches_whole_paths_and_what_lies_below(
    text: str, matched: list[str], missed: list[str]
) -> None:
    assert [name for name in matched if not covers(text, name)] == []
    assert [name for name in missed if covers(text, name)] == []


@pytest.mark.parametrize("text", ["re:(", "a[b", "a[3-1]", "a[0-999999]", "x" * 1001, "re:a{9999}"])
def test_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        pattern(text)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (3, [3], [2, 4]),
        ("3", [3], [4]),
        (">=64", [64, 65], [63]),
        ("<256", [255], [256]),
        ("!=1", [0, 2], [1]),
        (">=64, <512", [64, 511], [63, 512]),
        ("<= 1e3", [1000], [1001]),
        ("> 1_000", [1001], [1000]),
    ],
)
def test_number_satisfies_all_comparisons(text: int | str, yes: list[int], no: list[int]) -> None:
    assert [number_satisfies(text, value) for value in yes] == [True] * len(yes)
    assert [number_satisfies(text, value) for value in no] == [False] * len(no)


@pytest.mark.parametrize("text", ["", "x", ">", ">=a", "1 2", "<5, x", "3..4", "--3"])
def test_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        number_satisfies(text, 0)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"name": "layer2"}, True),
        ({"name": ["conv1", "layer2"]}, True),
        ({"type": "Conv2d"}, False),
        ({"type": "Conv2d", "subclasses": True}, True),
        ({"type": "ScaledStd*"}, True),
        ({"kind": "conv"}, True),
        ({"kind": ["linear", "attention"]}, False),
        ({"position": "first"}, False),
        ({"kernel": 3}, True),
        ({"kernel": [1, "3x3"]}, True),
        ({"kernel": "3x1"}, False),
        ({"stride": "2x1"}, True),
        ({"stride": 2}, False),
        ({"stride": ">=1"}, True),
        ({"dilation": ">1"}, False),
        ({"groups": 1}, True),
        ({"groups": "depthwise"}, False),
        ({"in": ">=64"}, True),
        ({"out": "<128"}, False),
        ({"params": ["<256", ">70000"]}, True),
        ({"calls": 1}, True),
        ({"has_skip": True}, True),
        ({"has_skip": False}, False),
        ({"skip": ["own", "enclosing"]}, True),
        ({"inside": "BasicBlock"}, True),
        ({"inside": "Bottleneck"}, False),
        ({"before": "F.relu"}, True),
        ({"after": "BatchNorm2d"}, False),
        ({"after": "ReLU*"}, True),
        ({"downsample": True}, False),
        ({"gate": False}, True),
        ({"input_sign": "nonneg"}, True),
        ({"not": {"kernel": 1}}, True),
        ({"not": [{"kernel": 1}, {"kind": "conv"}]}, False),
        ({"any": [{"kernel": 1}, {"kind": "conv"}]}, True),
        ({"any": {"kernel": 1}}, False),
        ({"kind": "conv", "kernel": 1}, False),
        ({"any": [{"not": {"kind": "conv"}}, {"any": [{"in": 64}]}]}, True),
    ],
)
def test_selector(match: dict[str, Any], expected: bool) -> None:
    assert Rule(match, "keep").matches(LAYER) is expected


def test_selector_of_a_size_misses_layers_without_one() -> None:
    assert not Rule({"kernel": ">=0"}, "keep").matches(layer(kernel=(), kind="linear"))


def test_depthwise_means_one_input_channel_a_filter() -> None:
    match = Rule({"groups": "depthwise"}, "keep").match
    assert holds(match, layer(groups=64))
    assert not holds(match, layer(groups=32))
    assert not holds(match, layer(groups=1, in_channels=1))


def test_stem_and_head_are_first_and_last() -> None:
    assert Rule({"position": ["stem", "head"]}, "keep").match == {"position": ["first", "last"]}


LAYERS = [
    layer(name="conv1", order=0),
    layer(name="embed", order=1, kind="embedding"),
    layer(name="body.1", order=2),
    layer(name="head", order=9, kind="linear"),
    layer(name="body.2", order=3),
    layer(name="unused", order=10, calls=0),
]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"first": 2}, ["conv1", "body.1"]),
        ({"last": 2}, ["head", "body.2"]),
        ({"first": 99}, ["conv1", "body.1", "head", "body.2"]),
        ({"not": [{"first": 2}]}, ["embed", "head", "body.2", "unused"]),
        ({"any": [{"first": 1}, {"last": 1}]}, ["conv1", "head"]),
        ({"first": 3, "last": 3}, ["body.1", "body.2"]),
        ({"first": 3, "name": ["body.*"]}, ["body.1", "body.2"]),
    ],
)
def test_counted_layers_become_names(match: dict[str, Any], expected: list[str]) -> None:
    bound = name_counted(match, LAYERS)
    assert [one.name for one in LAYERS if holds(bound, one)] == expected


def test_named_patterns_match_these_layers_alone() -> None:
    odd = [layer(name=name) for name in ("a", "a.b", "*", "x[1]", "re:x", "", "plain")]
    for one in odd:
        (text,) = named([one.name], odd)
        assert [other.name for other in odd if covers(text, other.name)] == [one.name]
    assert named(["plain"], odd) == ["plain"]


def test_strays_are_patterns_that_fit_nothing_outside_of_not() -> None:
    match = {
        "name": ["conv1", "convx"],
        "type": ["Conv2D"],
        "inside": ["ResNet", "Other"],
        "not": [{"name": ["nothing"]}],
        "any": [{"name": ["lost"]}],
    }
    assert [(key, text) for key, text, _ in strays(match, LAYERS)] == [
        ("name", "convx"),
        ("type", "Conv2D"),
        ("name", "lost"),
    ]
