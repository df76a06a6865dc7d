"""Where a float model came from, as it is remembered."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from binarize.inputs.arguments import Arguments, TensorKind
from binarize.sources import Source
from binarize.sources.architectures import split
from binarize.sources.user_code import is_user_code

__all__ = ["SourceRecord"]


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
        """Seeded arguments of the kind that the model was captured on, in its precision; None where they are unknown.

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
