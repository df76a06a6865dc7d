"""What every exporter starts from: the model frozen and packed, and arguments of the shapes that it takes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from binarize.checkpoint import load
from binarize.conversion import SourceRecord, conversion_of
from binarize.errors import UsageError
from binarize.liveness import arguments_of
from binarize.packed.freeze import Example, Frozen, frozen_record, pack_layers
from binarize.packing import PACKED, freeze, load_packed
from binarize.record import has_record, read_record
from binarize.sources.examples import Arguments, TensorKind

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
            return packed, _example(example_input, packed, origin.example)
        found = frozen_record(packed)
        return packed, _example(example_input, packed, _floats(found))
    conversion, record = conversion_of(model), frozen_record(model)
    if record is not None:
        packed = pack_layers(copy.deepcopy(model))
        return packed, _example(example_input, packed, _floats(record))
    if conversion is None:
        raise UsageError(
            "export: the model was not made by binarize.convert; convert it, or name a saved folder"
        )
    packed = pack_layers(freeze(model, example_input))
    origin = conversion.source
    return packed, _example(example_input, packed, origin.example)


def _read(path: Path, example_input: Any, source: str | None) -> nn.Module:
    """The packed file where there is one, else the folder's latent weights frozen and packed."""
    if path.is_file() or (path / PACKED).exists():
        return load_packed(path, source=source)
    return pack_layers(freeze(load(path, source=source), example_input))


def _floats(record: Frozen | None) -> Arguments | None:
    """What a packed file alone tells of the input: shapes."""
    return Arguments(tuple(TensorKind(shape) for shape in record.input_shapes)) if record else None


def _example(given: Any, model: nn.Module, known: Arguments | None) -> Example:
    if given is not None:
        return arguments_of(given)
    if known is None or not known.kinds:
        raise UsageError("export: nobody knows which inputs the model takes; give example_input=...")
    return known.make(model)
