"""What a converted model remembers of its making: enough to report on it, save it and make it again."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from binarize.conversion.source_record import SourceRecord
from binarize.inputs.seen import Preprocessing, Seen, Verb
from binarize.modules.copies import without_data
from binarize.modules.hooks import silenced_hooks
from binarize.planning.plan import Plan
from binarize.report.report import Report
from binarize.rules.rule_set import RuleSet

__all__ = ["Conversion", "arguments_taken", "conversion_of", "forget", "remember", "remember_images"]


_ATTRIBUTE = "_binarize"


@dataclass(frozen=True)
class Conversion:
    """The plan that was carried out, and what surrounds it."""

    plan: Plan
    source: SourceRecord
    rules: RuleSet
    report: Report
    # The float model without its data, where no builder could make it again.
    skeleton: nn.Module | None = None
    seed: int = 0
    command: str | None = None
    # How images are shown to it, which classes they have, and which it was fitted on.
    seen: Seen = field(default_factory=Seen)
    # The float model itself, for as long as its owner keeps it; it teaches. No part of what is saved.
    original: weakref.ref[nn.Module] | None = field(default=None, repr=False, compare=False)
    # What the user named as the source when the model was loaded: it makes the float model again. No part of what is saved.
    named_source: str | None = field(default=None, repr=False, compare=False)
    # Whether the source stands here as the user said it in this process, and was not read from a file.
    said: bool = field(default=False, compare=False)

    @property
    def source_to_say(self) -> str | None:
        """What `--source` has to name when the model is loaded again: as said in this call, or at the conversion."""
        own_pickle = self.source.kind == "pickle" and self.source.trusted_pickle
        return self.named_source or self.source.code or (self.source.spec if own_pickle else None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "original": None, "said": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A pickle's way back; those of earlier versions say nothing of images."""
        self.__dict__.update({"seen": Seen(), **state})

    def __deepcopy__(self, memo: dict[int, Any]) -> Conversion:
        # Data that nobody changes: a copied model shares it, and the way to its float model.
        return replace(self)

    @staticmethod
    def skeleton_of(module: nn.Module, builder: str | None) -> nn.Module | None:
        """A copy without data of a float model that no named builder makes."""
        if builder is not None:
            return None
        # The user's hooks are code: no file can hold them, and they need not even be copyable.
        with silenced_hooks(module):
            return without_data(module, keep_unsaved=True)


def remember(model: nn.Module, conversion: Conversion) -> None:
    """Attach the conversion to the model, and the report under its public name where that is free."""
    setattr(model, _ATTRIBUTE, conversion)
    if not hasattr(type(model), "report") and not isinstance(getattr(model, "report", None), nn.Module):
        model.report = conversion.report  # type: ignore[assignment]


def forget(model: nn.Module) -> None:
    """Take the conversion off a model that became something else."""
    vars(model).pop(_ATTRIBUTE, None)
    if isinstance(vars(model).get("report"), Report):
        del model.report


def remember_images(model: nn.Module, preprocessing: Preprocessing | None, by: Verb) -> None:
    """Let a converted model remember how images are shown to it from now on; None changes nothing."""
    conversion = conversion_of(model)
    if conversion is not None:
        remember(model, replace(conversion, seen=conversion.seen.showing(preprocessing, by)))


def conversion_of(model: nn.Module) -> Conversion | None:
    """The conversion that made this model, None for any other model."""
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Conversion) else None


def arguments_taken(model: nn.Module) -> int | None:
    """How many positional arguments the model was converted with; None where that is unknown."""
    conversion = conversion_of(model)
    example = None if conversion is None else conversion.source.example
    return None if example is None else len(example.args) or None
