from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest

from binarize.errors import SourceError
from binarize.planning.advice import Advice, Hint
from binarize.planning.plan import Plan
from binarize.report.data import Agreement, Check
from binarize.report.live import LiveShare
from binarize.report.report import Report, make_report
from binarize.report.schema import SCHEMA_FILE, report_schema


@pytest.fixture
def report(plan: Plan) -> Report:
    return make_report(
        plan,
        live={"blocks.0.conv1": LiveShare(0.5, 0.0), "mixing": LiveShare(0.995, 0.4)},
        agreement=Agreement(0.25, 64),
        checks=(Check("output shape", True, "(1, 10)"),),
        files={"model.safetensors": 1234},
        command="binarize convert tests:small",
        next_commands=("binarize finetune small-adabin --data DIR",),
    )


def test_every_decision_is_a_row_in_order_with_its_reason(plan: Plan, report: Report) -> None:
    assert [row.name for row in report.rows] == [decision.layer.name for decision in plan.decisions]
    assert report.row("stem").reason == "first @ adabin.yaml:16"
    assert report.row("odd").reason == "guard over body"
    assert replace(report.row("odd"), rule=None, guard=None).reason == "no rule"


def test_totals_are_the_sums_of_the_rows(plan: Plan, report: Report) -> None:
    total = report.totals
    for name in asdict(report.rows[0].cost):
        outside = 4 if name.endswith("_bytes") else 1 if name == "params" else 0
        rows = sum(getattr(row.cost, name) for row in report.rows)
        assert getattr(total, name) == rows + outside * plan.other_params, name
    assert (total.binary_layers, total.weight_only_layers, total.layers) == (5, 1, 8)


def test_scheme_of_the_plan_decides_what_packing_stores(report: Report) -> None:
    assert report.row("blocks.0.conv1").cost.scale_values == 2 * 16
    assert report.row("mixing").cost.scale_values == 0


def test_kept_layers_are_grouped_by_reason(plan: Plan) -> None:
    twice = replace(plan, decisions=(plan.decisions[0], *plan.decisions))
    kept = make_report(twice).kept
    assert [group.layers for group in kept] == [("stem", "stem"), ("odd",), ("fc",)]
    assert kept[0].why == "sees raw pixels" and kept[0].params == 2 * 432


def test_shortcuts_norms_and_ends_are_counted(report: Report) -> None:
    assert report.shortcuts == {"identity": 4} and report.norms_added == 4
    assert report.first == ("stem",) and report.last == ("fc",)


def test_dead_inputs_are_one_warning_that_names_the_layers(plan: Plan) -> None:
    dead = {f"blocks.{block}.conv1": LiveShare(1.0, 0.0) for block in range(2)}
    report = make_report(plan, live=dead)
    assert report.warnings[0] == "the stem is small" and len(report.warnings) == 2
    assert report.warnings[1].startswith(
        "blocks.0.conv1: 100 % of its input is +1 (and the like in blocks.1.conv1)"
    )
    assert report.row("blocks.1.conv1").warnings == ("100 % of its input is +1",)


def test_hints_of_the_plan_become_sentences(plan: Plan) -> None:
    assert make_report(plan).hints == ()
    hints = (
        Hint(Advice.CALIBRATE, ("blocks.0.conv1", "blocks.1.conv1")),
        Hint(Advice.ADD_SHORTCUTS, tuple(f"conv{i}" for i in range(9))),
        Hint(Advice.SHORTCUT_EVERY, ("mixing",)),
    )
    calibrate, add, every = make_report(replace(plan, hints=hints)).hints
    assert (
        calibrate.startswith("blocks.0.conv1 and 1 more: nothing tells") and "--calibrate DATA" in calibrate
    )
    assert add.startswith("9 binary convolutions") and add.endswith("--add-shortcuts")
    assert "--shortcuts every" in every


def test_json_round_trip_is_exact(report: Report, plan: Plan) -> None:
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert Report.from_json(make_report(plan).to_json()) == make_report(plan)
    assert next(iter(report.to_json())) == "schema"


def test_published_schema_is_what_the_types_say_and_reports_follow_it(report: Report, plan: Plan) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == report_schema(), "write it anew: python -m binarize.report.schema"
    jsonschema.Draft202012Validator.check_schema(published)
    for made in (report, make_report(plan), make_report(Plan("bnn", "empty", ()))):
        jsonschema.validate(made.to_json(), published)
    wrong: tuple[dict[str, Any], ...] = ({"extra": 1}, {"rows": [{}]}, {"totals": None}, {"norms_added": "4"})
    for broken in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**report.to_json(), **broken}, published)


def test_a_number_that_is_not_finite_is_left_out_of_the_json(plan: Plan) -> None:
    live = {"mixing": LiveShare(float("nan"), 0.0)}
    report = make_report(plan, live=live, agreement=Agreement(float("nan"), 0))
    assert report.agreement is None
    assert report.row("mixing").live is None and report.row("mixing").warnings
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "change, message", [({"schema": 99}, "version 99"), ({"rows": 3}, "rows"), ({"totals": {}}, "totals")]
)
def test_other_forms_and_versions_are_refused(
    report: Report, change: dict[str, object], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        Report.from_json({**report.to_json(), **change})


def test_reports_are_made_and_rendered_without_torch() -> None:
    code = (
        "import sys\n"
        "from binarize.planning.plan import Plan\n"
        "from binarize.report import difference\n"
        "from binarize.report.drawing import html, markdown, terminal\n"
        "from binarize.report.report import make_report\n"
        "report = make_report(Plan('bnn', 'empty', ()))\n"
        "str(report), markdown.to_markdown(report), html.to_html(report)\n"
        "assert not {'torch', 'torchvision', 'timm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
