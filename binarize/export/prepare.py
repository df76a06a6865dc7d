"""What every exporter starts from: the model frozen and packed, and arguments of the shapes that it takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from binarize.checkpoint import load
from binarize.conversion import SourceRecord, conversion_of
from binarize.errors import UsageError
from binarize.liveness import arguments_of
from binarize.packed.freeze import Example, frozen_record, pack_layers
from binarize.packing import PACKED, freeze, load_packed
from binarize.record import has_record, read_record

__all__ = ["prepared"]


def prepared(
    model: nn.Module | str | Path, example_input: Any, source: str | None
) -> tuple[nn.Module, Example]:
    """(a packed copy of the model, the arguments of one forward call: those given, else noise of the known shapes).

    Raises: UsageError, where the model was not converted, or nobody knows what it takes.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        packed, folder = _read(path, example_input, source), path if path.is_dir() else path.parent
        if has_record(folder):
            origin = SourceRecord.from_json(read_record(folder)["source"])
            return packed, _example(example_input, packed, origin.input_shapes, origin.keyword_shapes)
        found = frozen_record(packed)
        return packed, _example(example_input, packed, found.input_shapes if found else (), {})
    conversion, record = conversion_of(model), frozen_record(model)
    if record is not None:
        packed = pack_layers(copy.deepcopy(model))
        return packed, _example(example_input, packed, record.input_shapes, {})
    if conversion is None:
        raise UsageError(
            "export: the model was not made by binarize.convert; convert it, or name a saved folder"
        )
    packed = pack_layers(freeze(model, example_input))
    origin = conversion.source
    return packed, _example(example_input, packed, origin.input_shapes, origin.keyword_shapes)


def _read(path: Path, example_input: Any, source: str | None) -> nn.Module:
    """The packed file where there is one, else the folder's latent weights frozen and packed."""
    if path.is_file() or (path / PACKED).exists():
        return load_packed(path, source=source)
    return pack_layers(freeze(load(path, source=source), example_input))


def _example(
    given: Any,
    model: nn.Module,
    shapes: tuple[tuple[int, ...], ...],
    keywords: Mapping[str, tuple[int, ...]],
) -> Example:
    if given is not None:
        return arguments_of(given)
    if not (shapes or keywords):
        raise UsageError("export: nobody knows which inputs the model takes; give example_input=...")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    generator = torch.Generator().manual_seed(0)

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    return tuple(noise(shape) for shape in shapes), {name: noise(shape) for name, shape in keywords.items()}
