"""What one might want to try, and what is wrong with the inputs of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from binarize.errors import way
from binarize.planning.advice import Advice
from binarize.planning.decision import UNKNOWN_START
from binarize.planning.plan import Plan
from binarize.report.data import Row
from binarize.report.live import MeasuredOn
from binarize.report.names import fold_names

__all__ = ["NOISE", "dead_inputs", "hints_of", "noise_hint"]


# What one should know of shares of +1 that were measured on these.
NOISE: Mapping[MeasuredOn, str] = {
    "noise": "the shares of +1 were measured on an example input that looks like noise: they say little of real images",
    "made-up noise": "the shares of +1 were measured on made-up noise: they say little of real images",
}


def noise_hint(measured_on: MeasuredOn) -> str:
    """What noise tells, and how to take real images."""
    if measured_on != "made-up noise":
        return NOISE[measured_on]
    return f"{NOISE[measured_on]}; {way('--calibrate DATA', 'example_input=images')} takes real ones"


def hints_of(plan: Plan) -> tuple[str, ...]:
    """What images, or another choice of shortcuts, would do for this model, in sentences."""
    return tuple(_SENTENCES[hint.advice](hint.layers) for hint in plan.hints)


def _calibrate(layers: Sequence[str]) -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return (
        f"{layers[0]}{more}: nothing tells where the values of the input lie, so the threshold is {UNKNOWN_START}: "
        "--calibrate DATA, or finetune, which sets it from training images"
    )


def _add_shortcuts(layers: Sequence[str]) -> str:
    return (
        f"{len(layers)} binary convolutions have no skip around them; in plain networks this deep shortcuts bring "
        "accuracy: --add-shortcuts"
    )


def _shortcut_every(layers: Sequence[str]) -> str:
    return (
        "no shortcut was missing: every binary layer stands inside a skip already; --shortcuts every gives "
        "each one its own, as Bi-Real Net does"
    )


_SENTENCES: Mapping[Advice, Callable[[Sequence[str]], str]] = {
    Advice.CALIBRATE: _calibrate,
    Advice.ADD_SHORTCUTS: _add_shortcuts,
    Advice.SHORTCUT_EVERY: _shortcut_every,
}


def dead_inputs(rows: Sequence[Row], measured_on: MeasuredOn = "nothing") -> tuple[str, ...]:
    """One warning for all layers whose input says next to nothing, with the remedy."""
    dead = [row for row in rows if row.warnings]
    if not dead:
        return ()
    others = f" (and the like in {fold_names([row.name for row in dead[1:]])})" if len(dead) > 1 else ""
    # Whoever gave images has calibrated: what they cannot part, no threshold does.
    remedy = "" if measured_on == "calibration images" else "calibrate on real images, or "
    return (
        f"{dead[0].name}: {' and '.join(dead[0].warnings)}{others}; {remedy}keep it "
        f'float (--keep "{dead[0].name}")',
    )
