"""Rules decide: the last match wins, and says what its scheme becomes."""

from __future__ import annotations

import pytest

from binarize.analysis import Layer
from binarize.rules import load_rule_set

CONV = Layer(
    name="layer1.0.conv1", type="Conv2d", kind="conv", order=1, kernel=(3, 3), params=36864, in_channels=64
)


@pytest.mark.parametrize("name", ["adabin", "bireal"])
def test_shipped_rule_set_binarizes_the_body_and_keeps_first_and_last(name: str) -> None:
    rules = load_rule_set(name)
    body = rules.decide(CONV)
    assert body is not None and body.id == "body" and body.scheme == name
    assert body.where.startswith(f"{name}.yaml:")
    first = rules.decide(
        Layer(name="conv1", type="Conv2d", kind="conv", order=0, params=9408, position="first")
    )
    assert first is not None and first.action == "keep" and first.why == "sees raw pixels"


def test_scheme_of_a_rule_holds_its_parts() -> None:
    rules = load_rule_set("adabin")
    scheme = rules.scheme(rules.decide(CONV))
    assert scheme.name == "adabin"
    assert scheme.weight.name == "adabin.AdaptiveWeight"
    assert scheme.weight.kwargs["estimator"].kwargs == {"t": 0.1, "k": 10}
