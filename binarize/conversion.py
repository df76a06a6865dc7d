"""What a converted model remembers of its making: enough to report on it, save it and make it again."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from binarize.capture.shadow import silenced_hooks
from binarize.plan import Plan
from binarize.report.model import Report
from binarize.rules import RuleSet
from binarize.seen import Preprocessing, Seen, Verb
from binarize.sources import Source
from binarize.sources.architectures import split
from binarize.sources.examples import Arguments, TensorKind
from binarize.sources.structure import without_data
from binarize.sources.user_code import is_user_code

__all__ = [
    "Conversion",
    "SourceRecord",
    "conversion_of",
    "forget",
    "remember",
    "remember_images",
]

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
    # What the model takes, as the example said; None where it holds objects that no file can.
    example: Arguments | None = None
    # Of the Python file of the user's own that makes the model or its architecture.
    code_sha256: str | None = None
    # A digest of the float model's weights, where the user's own code makes them anew.
    float_weights: str | None = None
    # Whether the user let the file run what it holds: `--trust-pickle`, to be said again in each call.
    trusted_pickle: bool = False

    @classmethod
    def of(
        cls, source: Source, images: tuple[tuple[Any, ...], Any], float_weights: str | None = None
    ) -> SourceRecord:
        """The record of a loaded source and the example it was captured on."""
        args, kwargs = images
        floats = (p.dtype for p in source.module.parameters() if p.is_floating_point())
        precision = next(floats, torch.get_default_dtype())
        return cls(
            source.spec,
            source.kind,
            source.class_path,
            source.builder,
            source.num_classes,
            source.arch,
            source.weights,
            source.sha256,
            Arguments.of(args, kwargs, precision),
            source.code_sha256,
            float_weights,
            source.trusted_pickle,
        )

    @property
    def code(self) -> str | None:
        """The user's own code that makes the model or its architecture, as it was named; None where there is none.

        Words for the user to say again: no file makes it run.
        """
        if self.kind == "factory":
            return self.spec
        own = self.arch is not None and split(self.arch) is None and is_user_code(self.arch)
        return self.arch if own else None

    def named_anew(self, code: str, code_sha256: str | None) -> SourceRecord:
        """The same where code of the user's own now makes what was a module in memory; any other record as it is."""
        if self.kind != "module" or self.builder is not None or code_sha256 is None:
            return self
        return replace(self, kind="factory", spec=code, code_sha256=code_sha256)

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the positional tensors."""
        return tuple(kind.shape for kind in Arguments(self.example.args).kinds) if self.example else ()

    @property
    def keyword_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors given by keyword."""
        kwargs = self.example.kwargs if self.example else {}
        return {key: kind.shape for key, kind in kwargs.items() if isinstance(kind, TensorKind)}

    def inputs(
        self, model: nn.Module, *, batch: int | None = None, noise: bool = True
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Seeded arguments of the kind that the model was captured on, in its precision; None where nobody knows them.

        `batch` makes them so many; without `noise` they are zeros.
        """
        if self.example is None or not self.example.kinds:
            return None
        return self.example.make(model, batch=batch, noise=noise)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        example = None if self.example is None else self.example.to_json()
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "example": example}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SourceRecord:
        """The record that `to_json` wrote."""
        example = data["example"]
        return cls(**{**data, "example": None if example is None else Arguments.from_json(example)})


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
