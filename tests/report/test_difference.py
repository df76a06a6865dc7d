from __future__ import annotations

import json
from dataclasses import replace

from binarize.planning.plan import Plan
from binarize.report.difference import Change, diff
from binarize.report.report import make_report


def test_a_report_does_not_differ_from_itself(plan: Plan) -> None:
    assert not diff(make_report(plan), make_report(plan))


def test_moving_a_rule_in_its_file_is_no_difference(plan: Plan) -> None:
    moved = tuple(replace(item, where="other.yaml:1") for item in plan.decisions)
    assert not diff(make_report(plan), make_report(replace(plan, decisions=moved)))


def test_changed_decisions_and_totals_are_listed(plan: Plan) -> None:
    kept = replace(plan.decisions[5], action="keep", scheme=None, weights_only=False, rule="mine")
    other = replace(plan, decisions=(*plan.decisions[:5], kept, *plan.decisions[6:]))
    difference = diff(make_report(plan), make_report(other))
    assert Change("mixing", "action", "binarize", "keep") in difference.layers
    assert Change("mixing", "rule", "body", "mine") in difference.layers
    assert Change(None, "binary_layers", 5, 4) in difference.totals
    assert {change.layer for change in difference.layers} == {"mixing"}
    packed = next(change for change in difference.layers if change.field == "packed_bytes")
    assert (packed.before_text, packed.after_text) == ("48 B", "1.50 KiB")
    json.dumps(difference.to_json())


def test_layers_of_one_side_are_listed(plan: Plan) -> None:
    less = make_report(replace(plan, decisions=plan.decisions[1:]))
    assert diff(make_report(plan), less).only_before == ("stem",)
    assert diff(less, make_report(plan)).only_after == ("stem",)
