"""Cumulative chains: "+WD" adds the settings of the step WD to all before it, "-LS" takes those of LS away again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from binarize.rules.values import hint
from binarize.rules.yaml.document import Document, Fault

__all__ = ["Choice", "chain"]

_ENTRY = re.compile(r"([+-][^+\-\s]+)+")
_PART = re.compile(r"([+-])([^+\-\s]+)")


@dataclass(frozen=True)
class Choice:
    """One value of an axis: what it is called, and the settings it changes."""

    label: str
    settings: Mapping[str, Any]


def chain(
    document: Document, name: str, entries: Sequence[str], steps: Mapping[str, Mapping[str, Any]]
) -> tuple[Choice, ...]:
    """The choices of a chain. Raises RuleError at the entry that cannot be meant.

    Example: [none, +A, +B, -A] -> no settings, those of A, those of A and then B, those of B.
    """
    active: list[str] = []
    choices = []
    for i, entry in enumerate(entries):
        at = ("chains", name, i)
        if entry == "none":
            active = []
        elif _ENTRY.fullmatch(entry) is None:
            raise document.error(
                Fault(f'"{entry}" is no entry of a chain; expected none, +STEP or -STEP', at)
            )
        else:
            for sign, step in _PART.findall(entry):
                if step not in steps:
                    raise document.error(Fault(f'there is no step "{step}"{hint(step, steps)}', at))
                if (sign == "-") is (step not in active):
                    state = "is not there to take away" if sign == "-" else "is there already"
                    raise document.error(Fault(f'"{entry}": {step} {state}', at))
                active = [one for one in active if one != step] if sign == "-" else [*active, step]
        settings: dict[str, Any] = {}
        for step in active:
            settings |= steps[step]
        choices.append(Choice(entry, settings))
    return tuple(choices)
