"""What one might want to try with a plan, decided from its decisions. The report makes sentences of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from binarize.planning.decision import Decision
from binarize.schemes.scheme import Scheme

__all__ = ["DEEP", "Advice", "Hint", "advise"]

# Binary convolutions outside any skip from which on shortcuts pay: they brought nothing to 5, up to two points to 15
# (benchmarks/accuracy.py depth-*).
DEEP = 8


class Advice(Enum):
    """What to try."""

    # Images: nothing tells where the values of these layers' inputs lie.
    CALIBRATE = "calibrate"
    # Shortcuts: these layers are a deep network without any.
    ADD_SHORTCUTS = "add shortcuts"
    # Shortcuts around every layer: where they are missing was asked for, and none of these layers misses one.
    SHORTCUT_EVERY = "shortcut every"


@dataclass(frozen=True)
class Hint:
    """An advice, and the layers that it is about."""

    advice: Advice
    layers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The hint as JSON values."""
        return {"advice": self.advice.value, "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Hint:
        """The hint that `to_json` wrote."""
        return cls(Advice(data["advice"]), tuple(data["layers"]))


def advise(
    decisions: Iterable[Decision], schemes: Mapping[str, Scheme], unknown: Collection[str]
) -> tuple[Hint, ...]:
    """The hints of a plan. `unknown` are layers of which nothing tells where the threshold starts."""
    binary = [decision for decision in decisions if decision.binary]
    found = (
        Hint(Advice.CALIBRATE, tuple(d.layer.name for d in binary if d.layer.name in unknown)),
        Hint(Advice.ADD_SHORTCUTS, _without_shortcuts(binary, schemes)),
        Hint(Advice.SHORTCUT_EVERY, _missing_none(binary, schemes)),
    )
    return tuple(hint for hint in found if hint.layers)


def _without_shortcuts(binary: list[Decision], schemes: Mapping[str, Scheme]) -> tuple[str, ...]:
    """Signs of signs lose what a float network carries from layer to layer: the more layers, the more."""
    never = {n for n, s in schemes.items() if s.shortcut in ("never", "residual") and s.input is not None}
    plain = [d for d in binary if d.scheme in never and d.layer.skip == "none" and d.layer.kind == "conv"]
    if len(plain) < DEEP or any(item.shortcut != "none" for item in binary):
        return ()
    return tuple(item.layer.name for item in plain)


def _missing_none(binary: list[Decision], schemes: Mapping[str, Scheme]) -> tuple[str, ...]:
    """`missing` finds nothing to do where the architecture has skips of its own."""
    missing = {name for name, scheme in schemes.items() if scheme.shortcut == "missing"}
    asked = [item for item in binary if item.scheme in missing]
    if any(item.shortcut != "none" or item.layer.skip == "none" for item in asked):
        return ()
    return tuple(item.layer.name for item in asked)
