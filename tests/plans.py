"""The plan of a network, as `convert` makes it."""

from __future__ import annotations

from typing import Any

import nets
from torch import nn

from binarize.analysis.analyse import analyse
from binarize.capture import capture
from binarize.planning.make import make_plan
from binarize.planning.plan import Plan
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import RuleSet


def plan_of(model: nn.Module, rules: RuleSet | None = None, args: tuple[Any, ...] | None = None) -> Plan:
    if args is None:
        assert isinstance(model, nets.Net)
        graph = capture(model, model.arguments(), model.keywords())
    else:
        graph = capture(model, args)
    return make_plan(analyse(graph), rules or load_rule_set("adabin"))
