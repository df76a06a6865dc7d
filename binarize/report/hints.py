"""What one might want to try, and what is wrong with the inputs of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from binarize.errors import way
from binarize.planning.plan import UNKNOWN_START, Decision, Plan
from binarize.report.data import Row
from binarize.report.live import MeasuredOn
from binarize.report.names import fold_names

__all__ = ["DEEP", "NOISE", "dead_inputs", "hints_of", "noise_hint"]


# Binary convolutions outside any skip from which on shortcuts pay: they brought nothing to 5, up to two points to 15
# (benchmarks/accuracy.py depth-*).
DEEP = 8
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
    """What images, or another choice of shortcuts, would do for this model."""
    binary = [decision for decision in plan.decisions if decision.binary]
    return (*_unknown(binary), *_unasked(plan, binary), *_pointless(plan, binary))


def _unknown(binary: Sequence[Decision]) -> tuple[str, ...]:
    """Inputs that never change sign, of which nothing tells the mean before an image was seen."""
    names = [item.layer.name for item in binary if item.threshold.endswith(UNKNOWN_START)]
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"{names[0]}{more}: nothing tells where the values of the input lie, so the threshold is {UNKNOWN_START}: "
        "--calibrate DATA, or finetune, which sets it from training images",
    )


def _unasked(plan: Plan, binary: Sequence[Decision]) -> tuple[str, ...]:
    """Signs of signs lose what a float network carries from layer to layer: the more layers, the more."""
    never = {name for name, s in plan.schemes.items() if s.shortcut == "never" and s.input is not None}
    plain = [d for d in binary if d.scheme in never and d.layer.skip == "none" and d.layer.kind == "conv"]
    if len(plain) < DEEP or any(item.shortcut != "none" for item in binary):
        return ()
    return (
        f"{len(plain)} binary convolutions have no skip around them; in plain networks this deep shortcuts bring "
        "accuracy: --add-shortcuts",
    )


def _pointless(plan: Plan, binary: Sequence[Decision]) -> tuple[str, ...]:
    """`missing` finds nothing to do where the architecture has skips of its own: say what would."""
    missing = {name for name, scheme in plan.schemes.items() if scheme.shortcut == "missing"}
    asked = [item for item in binary if item.scheme in missing]
    if not asked or any(item.shortcut != "none" for item in asked):
        return ()
    if not all(item.layer.skip != "none" for item in asked):
        return ()
    return (
        "no shortcut was missing: every binary layer stands inside a skip already; --shortcuts every gives "
        "each one its own, as Bi-Real Net does",
    )


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
