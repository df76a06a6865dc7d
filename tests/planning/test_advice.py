"""What one might want to try is decided with the plan and stored in it."""

from __future__ import annotations

import json
from dataclasses import replace

import nets
from plans import plan_of

from binarize.analysis.layer import Layer
from binarize.planning.advice import DEEP, Advice, Hint, advise
from binarize.planning.decision import UNKNOWN_START, Decision
from binarize.planning.plan import Plan, former_hints
from binarize.rules.load import load_rule_set
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

SIGN = Part("bnn.SteSign")
NEVER = {"own": Scheme("own", weight=SIGN, input=SIGN)}
MISSING = {"own": replace(NEVER["own"], shortcut="missing")}


def chain(length: int, **layer: str) -> list[Decision]:
    return [
        Decision(Layer(f"conv{i}", "Conv2d", "conv", i, **layer), "binarize", "", scheme="own")  # type: ignore[arg-type]
        for i in range(length)
    ]


def test_shortcuts_are_advised_to_plain_networks_from_a_depth_on() -> None:
    assert advise(chain(DEEP - 1), NEVER, ()) == ()
    names = tuple(f"conv{i}" for i in range(DEEP))
    assert advise(chain(DEEP), NEVER, ()) == (Hint(Advice.ADD_SHORTCUTS, names),)
    one = chain(DEEP)
    assert advise([replace(one[0], shortcut="identity"), *one[1:]], NEVER, ()) == ()
    assert advise(chain(DEEP), {"own": replace(NEVER["own"], input=None)}, ()) == ()


def test_every_is_advised_where_none_was_missing() -> None:
    assert advise(chain(2, skip="enclosing"), MISSING, ()) == (
        Hint(Advice.SHORTCUT_EVERY, ("conv0", "conv1")),
    )
    assert advise(chain(2, skip="enclosing"), NEVER, ()) == ()
    assert advise([*chain(1), *chain(2, skip="enclosing")], MISSING, ()) == ()


def test_images_are_advised_where_nothing_tells_the_threshold() -> None:
    assert advise(chain(3), NEVER, {"conv2", "conv9"}) == (Hint(Advice.CALIBRATE, ("conv2",)),)
    # Plans of earlier versions said it at the end of what they say of the threshold.
    former = [replace(one, threshold=f"per channel, {UNKNOWN_START}") for one in chain(1)]
    assert former_hints([*former, *chain(3)[1:]], NEVER) == (Hint(Advice.CALIBRATE, ("conv0",)),)


def test_the_plan_holds_its_hints() -> None:
    plan = plan_of(nets.BasicBlocks(), load_rule_set("adabin", shortcuts="missing"))
    (hint,) = plan.hints
    assert hint.advice is Advice.SHORTCUT_EVERY and hint.layers == tuple(d.layer.name for d in plan.binarized)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).hints == plan.hints
    assert former_hints(plan.decisions, plan.schemes) == plan.hints
