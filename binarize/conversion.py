"""What a converted model remembers of its making: enough to report on it, save it and make it again."""

from __future__ import annotations

import weakref
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from binarize.capture.shadow import silenced_hooks
from binarize.plan import Plan
from binarize.report.model import Report
from binarize.rules import RuleSet
from binarize.sources import Source
from binarize.sources.structure import without_data

__all__ = ["Conversion", "SourceRecord", "conversion_of", "forget", "remember"]

_ATTRIBUTE = "_binarize"


@dataclass(frozen=True)
class SourceRecord:
    """Where the float model came from, as JSON values."""

    spec: str
    kind: str
    class_path: str
    builder: str | None
    num_classes: int | None
    arch: str | None
    weights: str | None
    sha256: str | None
    # Shapes of the tensors of the example input, positional ones and by keyword.
    input_shapes: tuple[tuple[int, ...], ...]
    keyword_shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, source: Source, images: tuple[tuple[Any, ...], Any]) -> SourceRecord:
        """The record of a loaded source and the example it was captured on."""
        args, kwargs = images
        return cls(
            source.spec,
            source.kind,
            source.class_path,
            source.builder,
            source.num_classes,
            source.arch,
            source.weights,
            source.sha256,
            tuple(tuple(a.shape) for a in args if isinstance(a, Tensor)),
            {key: tuple(a.shape) for key, a in kwargs.items() if isinstance(a, Tensor)},
        )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SourceRecord:
        """The record that `to_json` wrote."""
        shapes = tuple(tuple(shape) for shape in data["input_shapes"])
        keywords = {key: tuple(shape) for key, shape in data["keyword_shapes"].items()}
        return cls(**{**data, "input_shapes": shapes, "keyword_shapes": keywords})


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
    # The float model itself, for as long as its owner keeps it; it teaches. No part of what is saved.
    original: weakref.ref[nn.Module] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "original": None}

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


def conversion_of(model: nn.Module) -> Conversion | None:
    """The conversion that made this model, None for any other model."""
    found = getattr(model, _ATTRIBUTE, None)
    return found if isinstance(found, Conversion) else None
