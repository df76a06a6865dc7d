from __future__ import annotations

from dataclasses import replace

from binarize.planning.plan import Plan
from binarize.report.data import Agreement, Check
from binarize.report.report import make_report
from binarize.report.words import closing, decision_word, facts, headline, nearby, notices


def test_headline_says_layers_macs_additions_and_checks(plan: Plan) -> None:
    done = make_report(plan, checks=(Check("reload", True),))
    assert headline(done) == (
        "✓ 5 of 8 layers binary (1 with float inputs) · 60.6 % of MACs · 4 shortcuts, 4 BatchNorm added · "
        "self-check passed"
    )
    assert "self-check" not in headline(make_report(plan))


def test_the_shortcut_of_a_block_is_not_said_to_be_added(plan: Plan) -> None:
    first = tuple(replace(item, shortcut="block") for item in plan.decisions[1:3])
    report = make_report(replace(plan, decisions=(*first, *plan.decisions[3:])))
    assert "· 2 shortcuts, 4 BatchNorm added" in headline(report)
    assert ("shortcuts", "2 identity, the block's own around 2 layers") in facts(report)


def test_headline_fails_with_a_check_or_with_nothing_binary(plan: Plan) -> None:
    failed = headline(make_report(plan, checks=(Check("shape", True), Check("reload", False))))
    assert failed.startswith("✗") and failed.endswith("self-check FAILED: reload")
    kept = tuple(decision for decision in plan.decisions if not decision.binary)
    assert headline(make_report(replace(plan, decisions=kept))).startswith("✗ 0 of 3 layers binary")


def test_closing_promises_only_what_is_known(plan: Plan) -> None:
    assert closing(make_report(plan)) == ["Accuracy is near chance until you fine-tune; that is expected."]
    lines = closing(
        make_report(
            plan, files={"a": 2**20}, agreement=Agreement(0.25, 1), next_commands=("binarize pack x",)
        )
    )
    assert lines[0].startswith(
        "On disk now: 1.00 MiB (latent float weights, for training). After `binarize pack`:"
    )
    assert lines[1] == "Top class equal to the float model's on 25.0 % of 1 example image."
    assert lines[-1] == "next: binarize pack x"
    kept = replace(plan, decisions=plan.decisions[:1])
    assert closing(make_report(kept, files={"a": 1})) == []


def test_facts_give_reasons_and_conventions(plan: Plan) -> None:
    lines = facts(make_report(plan))
    assert ("float", "stem: sees raw pixels (first @ adabin.yaml:16)") in lines
    assert ("no shortcut", "mixing: 24 is no multiple of 16") in lines
    assert any("OPs = FLOPs + BOPs / 64" in sentence for _, sentence in lines)
    captured = next(sentence for label, sentence in lines if label == "captured")
    assert captured.startswith("recording of a run on the example input")
    assert captured.endswith("(net.py:12); blocks.0: its forward cannot be traced")
    assert any(
        "add floats and multiply nothing" in sentence for label, sentence in lines if label == "compute"
    )


def test_every_unmatched_pattern_is_a_warning_with_nearest_names(plan: Plan) -> None:
    warning = 'rule "head" (my.yaml:12) matched no layer: name "clasifier.*"; nearest: fc, odd'
    assert ("warning", warning) in notices(make_report(plan))


def test_names_beside_a_layer_are_cut_short(plan: Plan) -> None:
    row = replace(make_report(plan).rows[1], name="layer1.0.conv1")
    assert nearby(row, "kept layer1.0.bn1") == "kept bn1"
    assert nearby(row, "kept layer1.0.1") == "kept .1"
    assert nearby(row, "kept layer1.1.bn1") == "kept layer1.1.bn1"
    assert nearby(row, "kept mylayer1.0.bn1") == "kept mylayer1.0.bn1"
    assert nearby(replace(row, name="conv1"), "kept bn1") == "kept bn1"


def test_decisions_are_told_apart_without_colour(plan: Plan) -> None:
    words = {row.name: decision_word(row) for row in make_report(plan).rows}
    assert (words["stem"], words["blocks.0.conv1"], words["mixing"]) == ("○ float", "● adabin", "◐ bnn")


def test_norms_are_counted_by_their_kind(plan: Plan) -> None:
    first, *rest = [decision for decision in plan.decisions if decision.norm.startswith("added")]
    others = [replace(first, norm="added LayerNorm"), *rest]
    kept = [decision for decision in plan.decisions if not decision.norm.startswith("added")]
    report = make_report(replace(plan, decisions=(*others, *kept)))
    assert "1 LayerNorm, 3 BatchNorm added" in headline(report)
