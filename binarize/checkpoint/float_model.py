"""The float model that a saved one was made from, built again: by a builder, from structure.pt, or as the user names it."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path

from torch import nn

from binarize.checkpoint.record import read_record
from binarize.checkpoint.structure import load_structure
from binarize.conversion.source_record import SourceRecord
from binarize.errors import (
    BinarizeWarning,
    SourceError,
    way,
)
from binarize.modules.copies import copy_model
from binarize.modules.float_check import bare
from binarize.sources import build
from binarize.sources import load as load_source

__all__ = ["STRUCTURE", "WEIGHTS", "float_model", "float_model_of", "named_float"]

# Files of a saved folder: its tensors, and the float model without data.
WEIGHTS, STRUCTURE = "model.safetensors", "structure.pt"
# The float weights take no more than so many times the file of weights, and this much.
_TIMES, _MORE = 4, 1 << 26


def float_model_of(
    folder: str | Path, *, model: nn.Module | None = None, source: str | None = None
) -> tuple[nn.Module, SourceRecord]:
    """(the float model that a saved one was made from, whatever its weights are; where it came from).

    Raises: what `load` does.
    """
    path = Path(folder)
    origin = SourceRecord.from_json(read_record(path)["source"])
    return float_model(path, origin, model, source), origin


def float_model(folder: Path, origin: SourceRecord, model: nn.Module | None, source: str | None) -> nn.Module:
    """The float model to replay the edits on; its weights are about to be replaced."""
    if model is not None:
        return copy_model(bare(model))
    if source is not None:
        return named_float(origin, source)
    if origin.builder is not None:
        if "(" in origin.builder or origin.num_classes is not None:
            _check_size(folder, build(origin.builder, num_classes=origin.num_classes, meta=True))
        return build(origin.builder, num_classes=origin.num_classes)
    if (folder / STRUCTURE).is_file():
        weights = folder / WEIGHTS
        held = weights.stat().st_size if weights.is_file() else 0
        return load_structure(folder / STRUCTURE, limit=_TIMES * held + _MORE)
    code = origin.code or "file.py:factory"
    raise SourceError(
        f"{folder}: the float model's class is your own ({origin.class_path}), which no file here can make\n"
        f"  give it: {way(f'--source {shlex.quote(code)}', f'load({str(folder)!r}, model=float_model), or source={code!r}')}"
    )


def named_float(origin: SourceRecord, named: str) -> nn.Module:
    """The float model that the user names in this call, with the number of classes that it was converted with.

    Whether its file is still the one of the conversion is said; whether the model fits is checked by who goes on.
    """
    same_call = origin.code is not None and origin.code.rpartition(":")[2] == named.rpartition(":")[2]
    loaded = load_source(named, num_classes=origin.num_classes if same_call else None)
    digests = origin.code_sha256, loaded.code_sha256
    if None not in digests and digests[0] != digests[1]:
        warnings.warn(
            f"{named.rpartition(':')[0]} has changed since the conversion (sha256 differs); what it makes is taken as long "
            "as it fits, and may be another float model",
            BinarizeWarning,
            stacklevel=2,
        )
    return loaded.module


def _check_size(folder: Path, empty: nn.Module) -> None:
    """Raises: SourceError, where a model without data would take much more memory than the weights beside it."""
    path = folder / WEIGHTS
    held = path.stat().st_size if path.is_file() else 0
    made = sum(p.numel() for p in empty.parameters())
    more = sum(buffer.numel() for buffer in empty.buffers())
    if made > held or more > held + _MORE:
        raise SourceError(
            f"{path}: damaged: its {held:,} bytes cannot hold the {made + more:,} numbers of the model that the record names"
        )
