"""Rules decide, guards turn "binarize" into "keep", and every change is resolved to named edits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nets
import pytest
import torch
from plans import plan_of
from torch import Tensor, nn

from binarize.analysis.analyse import analyse
from binarize.capture import capture
from binarize.conversion.convert import convert
from binarize.errors import NothingToBinarizeError
from binarize.planning.make import make_plan
from binarize.rules.load import load_rule_set


def test_the_last_matching_rule_decides_and_is_named_with_its_place() -> None:
    plan = plan_of(nets.ConvRelu(), load_rule_set("adabin", keep=["features.5"]))
    kept, body = plan["features.5"], plan["features.2"]
    assert (kept.action, kept.why, kept.rule, kept.where) == (
        "keep",
        "asked for by name",
        "keep-1",
        "--keep features.5",
    )
    assert (body.action, body.scheme, body.rule) == ("binarize", "adabin", "body")
    assert body.where is not None and body.where.startswith("adabin.yaml:")
    assert [d.layer.name for d in plan.binarized] == ["features.2", "classifier.0", "classifier.3"]


def test_a_layer_that_no_rule_matches_stays_float() -> None:
    rules = load_rule_set(rules=[{"match": {"name": "features.2"}, "use": "bnn"}])
    plan = plan_of(nets.ConvRelu(), rules)
    assert [d.layer.name for d in plan.binarized] == ["features.2"]
    assert plan["features.5"].why == "no rule matches it"


@pytest.mark.parametrize(
    "net, guarded",
    [
        (nets.Subclasses, ["standardized"]),
        (nets.FunctionalConv, ["filters"]),
    ],
)
def test_a_guard_keeps_what_cannot_be_binarized_and_gives_the_reason(
    net: type[nets.Net], guarded: list[str]
) -> None:
    plan = plan_of(net())
    found = {d.layer.name: d for d in plan.decisions if d.guard is not None}
    assert list(found) == guarded
    for decision in found.values():
        assert (decision.action, decision.rule) == ("keep", "body")
        assert decision.why == decision.guard == decision.layer.obstacle


def test_every_layer_has_exactly_one_decision_in_execution_order() -> None:
    for name, net in nets.ALL.items():
        model = net()
        plan = plan_of(model)
        assert [d.layer.order for d in plan.decisions] == list(range(len(plan.decisions))), name
        assert len({d.layer.name for d in plan.decisions}) == len(plan.decisions), name


@pytest.mark.parametrize(
    "model, size, words",
    [
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), 3, ["holds no convolution and no linear layer"]),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), 3, ["all 1 layers stay float", "1 kept: sees raw pixels (0)", "--binarize"]),
        (nn.Conv2d(16, 16, 3), 16, ["1 kept: it is the model itself; put it into a torch.nn.Sequential"]),
    ],
)  # fmt: skip
def test_nothing_to_binarize_is_an_error_with_the_reasons_grouped(
    model: nn.Module, size: int, words: list[str]
) -> None:
    ends = 1 if size == 3 else 0
    with pytest.raises(NothingToBinarizeError) as caught:
        plan_of(model, load_rule_set("adabin", keep_first=ends, keep_last=ends), (torch.ones(2, size, 8, 8),))
    assert caught.value.exit_code == 6
    assert all(word in str(caught.value) for word in ["nothing to binarize", *words])


def test_an_input_without_batch_axis_is_refused_before_a_norm_chokes_on_it() -> None:
    model = nn.Sequential(
        nets.conv(3, 16), nn.ReLU(), nets.conv(), nn.ReLU(), nets.conv(), nn.ReLU(), nets.conv()
    )
    with pytest.raises(NothingToBinarizeError, match=r"2 kept: its input has no batch axis \(2, 4\)"):
        plan_of(model, args=(torch.ones(3, 8, 8),))


def test_a_container_that_cannot_be_opened_is_named_and_planned_without() -> None:
    plan = plan_of(nets.ShapeDependent(), load_rule_set("adabin", shortcuts="every"))
    reason = {item.container: item.why for item in plan.capture.refused}["block"]
    assert reason.startswith(
        "TraceError: symbolically traced variables cannot be used as inputs to control flow at nets:"
    )
    # The block's own add goes around the last layer anyhow; the first adds its input to its own norm.
    first, last = (plan[name] for name in ("block.conv1", "block.conv2"))
    assert (first.shortcut, first.shortcut_why) == ("identity", f"in place: block cannot be edited: {reason}")
    assert last.shortcut == "none"
    assert last.shortcut_why == f"block cannot be edited: {reason}; the block's own add stays"
    for name in ("block.conv1", "block.conv2"):
        assert plan[name].binary
        # The functional ReLU cannot be replaced either, so a threshold makes its values signed.
        assert (plan[name].activation, plan[name].threshold[:11]) == ("kept F.relu", "per channel")


def test_one_closed_container_does_not_close_the_others() -> None:
    class Both(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.closed = nets.BasicBlock(16, 16, 1), nets.ShapeDependent.Block()

        def run(self, x: Tensor) -> Tensor:
            return self.closed(self.open(x))

    plan = plan_of(Both(), load_rule_set("adabin", shortcuts="every"))
    assert [item.container for item in plan.capture.refused] == ["closed"]
    assert [edit.container for edit in plan.edits if edit.op == "open"] == ["open"]
    assert plan["open.conv2"].shortcut == "identity"


def test_parameters_outside_the_listed_layers_are_counted() -> None:
    model = nets.BasicBlocks()
    plan = plan_of(model)
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert plan.other_params == norms
    assert plan.other_buffers == sum(b.numel() for b in model.buffers())
    assert sum(d.layer.params for d in plan.decisions) + norms == sum(p.numel() for p in model.parameters())


def test_patterns_without_a_layer_are_listed_with_the_nearest_names() -> None:
    plan = plan_of(nets.ConvRelu(), load_rule_set("adabin", keep=["classifer.0"]))
    (stray,) = plan.unmatched
    assert (stray.rule, stray.pattern) == ("keep-1", "classifer.0")
    assert "classifier.0" in stray.nearest


def test_planning_changes_neither_the_rules_nor_the_analysis() -> None:
    model = nets.BasicBlocks()
    analysis = analyse(capture(model, model.arguments()))
    rules = load_rule_set("adabin", shortcuts="every", keep_first=2)
    assert make_plan(analysis, rules).to_json() == make_plan(analysis, rules).to_json()
    assert make_plan(analysis, replace(rules)).to_json() == make_plan(analysis, rules).to_json()


def test_a_shortcut_in_place_adds_the_input_to_a_norm_of_the_layer_itself() -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nets.conv(), nn.BatchNorm2d(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x if x.shape[-1] % 2 == 0 else x[..., :-1]))

    class Plain(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.closed = Closed()

        def run(self, x: Tensor) -> Tensor:
            return self.closed(x)

    model = nets.seeded(Plain)
    rules = load_rule_set("adabin", shortcuts="missing")
    assert plan_of(model, rules)["closed.conv"].norm == "added BatchNorm2d"
    converted: Any = convert(model, rules=rules, example_input=nets.pictures(4))
    layer, x = converted.closed.conv, torch.randn(2, 16, 8, 8)
    assert isinstance(layer.norm, nn.BatchNorm2d) and isinstance(converted.closed.norm, nn.BatchNorm2d)
    with torch.no_grad():
        found = layer(x)
        layer.shortcut_inside = False
        torch.testing.assert_close(found, layer(x) + x)
