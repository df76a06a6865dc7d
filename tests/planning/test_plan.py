"""The plan is data: it survives JSON, and names what is not in it."""

from __future__ import annotations

import json

import nets
import pytest

from binarize.analysis.analyse import analyse
from binarize.capture import capture
from binarize.errors import SourceError, UsageError
from binarize.planning.make import make_plan
from binarize.planning.plan import Plan
from binarize.rules.load import load_rule_set


def plan_of(name: str, scheme: str = "adabin", shortcuts: str = "every") -> Plan:
    model = nets.ALL[name]()
    analysis = analyse(capture(model, model.arguments(), model.keywords()))
    return make_plan(analysis, load_rule_set(scheme, shortcuts=shortcuts, keep=["nothing.**"]))


@pytest.mark.parametrize("scheme", ["adabin", "reactnet", "xnor"])
@pytest.mark.parametrize("name", ["ConvRelu", "BasicBlocks", "NormActivation", "Keywords", "ShapeDependent"])
def test_json_round_trip_gives_an_equal_plan(name: str, scheme: str) -> None:
    plan = plan_of(name, scheme)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.to_json() == plan.to_json()
    assert again.decisions == plan.decisions
    assert again.schemes == plan.schemes
    assert again.unmatched == plan.unmatched


def test_decisions_are_found_by_name_and_a_typo_gets_the_nearest() -> None:
    plan = plan_of("ConvRelu")
    assert plan["features.2"].layer.name == "features.2"
    with pytest.raises(UsageError, match=r'no layer "feature\.2" in the plan; did you mean "features\.2"\?'):
        plan["feature.2"]


@pytest.mark.parametrize("damage", ["name", "decisions", "edits", "schemes", "capture"])
def test_data_that_is_no_plan_is_refused(damage: str) -> None:
    data = plan_of("ConvRelu").to_json()
    del data[damage]
    with pytest.raises(SourceError, match=f"not a plan: KeyError: '{damage}'"):
        Plan.from_json(data)


@pytest.mark.parametrize("damage", ["decisions", "edits", "schemes"])
def test_data_of_another_shape_is_refused(damage: str) -> None:
    with pytest.raises(SourceError, match="not a plan: "):
        Plan.from_json({**plan_of("ConvRelu").to_json(), damage: 5})
