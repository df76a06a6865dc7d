"""A small plan with one layer of every kind that a report has to show."""

from __future__ import annotations

from typing import Any

import pytest

from binarize.analysis.layer import Layer
from binarize.planning.plan import Decision, Plan
from binarize.planning.record.capture import Capture, Level, Refusal
from binarize.rules.rule_set import Unmatched
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme


def conv(name: str, inputs: int, outputs: int, size: int, kernel: int = 3, **facts: Any) -> Layer:
    """A convolution without bias that keeps its image at size x size."""
    weights = inputs * outputs * kernel * kernel
    return Layer(
        name=name,
        type="Conv2d",
        kind="conv",
        order=0,
        kernel=(kernel, kernel),
        in_channels=inputs,
        out_channels=outputs,
        in_shape=(1, inputs, size, size),
        out_shape=(1, outputs, size, size),
        weights=weights,
        params=weights,
        macs=weights * size * size,
        **facts,
    )


def binary(layer: Layer, **fields: Any) -> Decision:
    defaults: dict[str, Any] = {"scheme": "adabin", "rule": "body", "where": "adabin.yaml:12"}
    return Decision(layer, "binarize", "convolutions and linear layers", **{**defaults, **fields})


def keep(layer: Layer, rule: str, why: str, line: int) -> Decision:
    return Decision(layer, "keep", why, rule=rule, where=f"adabin.yaml:{line}")


@pytest.fixture
def plan() -> Plan:
    """Stem, two blocks of two convolutions, a weight-only layer, a guarded one and the classifier."""
    stem = keep(conv("stem", 3, 16, 32, position="first"), "first", "sees raw pixels", 16)
    blocks = tuple(
        binary(
            conv(f"blocks.{block}.conv{number}", 16, 16, 32),
            shortcut="identity",
            norm="added BatchNorm2d",
            activation="ReLU -> adabin.Maxout",
            extra_params=66,
            scale_values=2 * 16,
        )
        for block in range(2)
        for number in (1, 2)
    )
    mixing = binary(
        conv("mixing", 16, 24, 32, kernel=1),
        weights_only=True,
        scheme="bnn",
        shortcut_why="24 is no multiple of 16",
    )
    shared = "its weight is shared with tied"
    guarded = Decision(conv("odd", 24, 24, 32), "keep", shared, rule="body", guard=shared)
    last = Layer(
        "fc", "Linear", "linear", 7, in_channels=24, out_channels=10, in_shape=(1, 24), out_shape=(1, 10),
        weights=240, params=250, bias=True, macs=240, position="last",
    )  # fmt: skip
    return Plan(
        name="adabin",
        source="tests:small",
        decisions=(stem, *blocks, mixing, guarded, keep(last, "last", "gives the logits", 17)),
        schemes={
            "adabin": Scheme(
                "adabin",
                weight=Part("adabin.AdaptiveWeight"),
                input=Part("adabin.AdaptiveInput"),
                shortcut="missing",
            ),
            "bnn": Scheme("bnn", weight=Part("bnn.SteSign"), shortcut="missing"),
        },
        unmatched=(Unmatched("head", "clasifier.*", ("fc", "odd"), "my.yaml:12"),),
        other_params=100,
        other_buffers=50,
        warnings=("the stem is small",),
        capture=Capture(
            Level.DEVICE,
            notes=("the meta device met a branch on a value (net.py:12)",),
            refused=(Refusal("blocks.0", "its forward cannot be traced"),),
        ),
    )
