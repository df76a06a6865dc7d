"""A plan carried out on a copy, and carried out again."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import nets
import pytest
import torch
from odd_nets import Opened
from plans import plan_of
from test_laws import assert_equal, run
from torch import nn

from binarize.errors import CheckError, RewriteError
from binarize.layers.layer import BinaryLayer
from binarize.modules.copies import copy_model
from binarize.passes.rewrite import rewrite
from binarize.planning.plan import Plan
from binarize.planning.record.edit import Edit
from binarize.planning.record.edit_kinds import Open
from binarize.rules.load import load_rule_set


def full_plan(name: str) -> Plan:
    return plan_of(nets.ALL[name](), load_rule_set("adabin", shortcuts="every"))


@pytest.mark.parametrize(
    "name", ["BasicBlocks", "PreActivation", "Keywords", "FunctionalDropout", "StochasticDepth", "Decoder"]
)
def test_a_plan_that_only_opens_containers_changes_no_bit(name: str) -> None:
    plan = full_plan(name)
    opening = replace(plan, edits=tuple(edit for edit in plan.edits if edit.op == "open"))
    assert opening.edits
    model = nets.seeded(nets.ALL[name])
    opened = copy_model(model)
    assert set(rewrite(opened, opening)) == {edit.container for edit in opening.edits}
    assert_equal(run(model), run(opened))
    assert_equal(run(model.train()), run(opened.train()))


def test_a_plan_of_keeps_is_a_copy() -> None:
    model = nets.seeded(nets.BasicBlocks)
    kept = copy_model(model)
    assert rewrite(kept, Plan("nothing", "model", ())) == {}
    assert_equal(run(model), run(kept))
    assert [type(m) for m in kept.modules()] == [type(m) for m in model.modules()]


@pytest.mark.parametrize("name", list(nets.ALL))
@pytest.mark.sampled(20)
def test_replaying_a_plan_gives_the_same_model(name: str) -> None:
    plan = Plan.from_json(full_plan(name).to_json())
    first, second = nets.seeded(nets.ALL[name]), nets.seeded(nets.ALL[name])
    hashes = rewrite(first, plan)
    assert rewrite(second, replace(plan, capture=replace(plan.capture, sources=hashes))) == hashes
    assert list(first.state_dict()) == list(second.state_dict())
    assert sum(isinstance(module, BinaryLayer) for module in first.modules()) == len(plan.binarized)
    assert_equal(run(first), run(second))


@pytest.mark.parametrize("name", list(nets.ALL))
@pytest.mark.parametrize("scheme", ["adabin", "reactnet", "xnorpp"])
@pytest.mark.sampled
def test_the_plan_counts_exactly_the_parameters_that_are_added(name: str, scheme: str) -> None:
    model = nets.ALL[name]()
    plan = plan_of(model, load_rule_set(scheme, shortcuts="every"))
    before = sum(p.numel() for p in model.parameters())
    rewrite(model, plan)
    assert sum(d.extra_params for d in plan.decisions) == sum(p.numel() for p in model.parameters()) - before


def test_another_version_of_the_code_is_noticed() -> None:
    class Changed(nets.BasicBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.0

    plan = full_plan("BasicBlocks")
    hashes = rewrite(nets.BasicBlocks(), plan)
    plan = replace(plan, capture=replace(plan.capture, sources=hashes))
    model = nets.BasicBlocks()
    for block in model.blocks:
        block.__class__ = Changed
    with pytest.raises(CheckError, match=r"the rewritten forward of blocks\.0 differs from the saved one"):
        rewrite(model, plan)


def test_a_model_that_cannot_be_opened_as_planned_is_an_error() -> None:
    plan = full_plan("BasicBlocks")
    with pytest.raises(RewriteError, match=r"container blocks\.0 cannot be opened as planned"):
        rewrite(nets.ConvRelu(), plan)


def test_an_unknown_operation_is_an_error() -> None:
    class Remove(Edit):
        op = "remove"

    with pytest.raises(RewriteError, match="unknown operation 'remove'"):
        rewrite(nets.ConvRelu(), Plan("p", "model", (), (Remove(""),)))


def test_hooks_do_not_fire_and_do_not_get_into_the_new_forward() -> None:
    plan = plan_of(Opened(), load_rule_set("adabin", shortcuts="every"))
    assert Open("block", ("first", "second")) in plan.edits
    plain, hooked = Opened(), Opened()
    fired: list[str] = []
    for path, module in hooked.named_modules():
        module.register_forward_hook(lambda m, args, output, path=path: fired.append(path) or output * 1)
    assert rewrite(hooked, plan) == rewrite(plain, plan)
    assert fired == []


def test_a_copy_may_share_weights_and_has_state_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    twin = copy_model(model, model.parameters())
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    twin(torch.randn(4, 2))
    assert twin[1].num_batches_tracked == 1 and model[1].num_batches_tracked == 0


def test_a_hook_moves_with_the_copy_where_it_is_part_of_it() -> None:
    class Watching(nets.ConvBnRelu):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[nn.Module] = []
            self.layers[0].register_forward_hook(self.see)

        def see(self, module: nn.Module, *_: object) -> None:
            self.seen.append(module)

    model = Watching()
    other = copy_model(model)
    assert isinstance(other, Watching)
    other(nets.pictures(2))
    assert (model.seen, other.seen) == ([], [other.layers[0]])


def test_a_hook_that_cannot_be_copied_is_shared(tmp_path: Path) -> None:
    class Log:
        def __init__(self, model: nn.Module) -> None:
            self.model, self.file = model, (tmp_path / "log").open("w")

        def __call__(self, *_: object) -> None:
            self.file.write("x")

    model = nets.ConvBnRelu()
    log = Log(model)
    model.layers.register_forward_hook(log)
    kept: list[torch.Tensor] = []
    model.head.register_forward_hook(lambda m, args, output: kept.append(output))
    other = copy_model(model)
    assert list(other.layers._forward_hooks.values()) == [log]
    other(nets.pictures(2))
    log.file.close()
    assert (tmp_path / "log").read_text() == "x" and len(kept) == 1
    mine = {id(p) for p in model.parameters()}
    assert not mine & {id(p) for p in other.parameters()}
    assert type(copy.deepcopy(other.head)) is nets.Head
