"""binarize.json: what a saved model is, how it was made, and by what it is recognized."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from torch import nn

import binarize
from binarize.atomic import recover
from binarize.conversion import Conversion
from binarize.errors import CheckError, SourceError
from binarize.file_name import as_text, is_file, is_folder
from binarize.fingerprint import (
    is_permuted,
    machine,
    output_digest,
    record_digest,
    tensor_digest,
    tensors_of,
    unique_tensors,
)
from binarize.migrations import FORMAT, migrate
from binarize.record_schema import check_record
from binarize.sources.structure import tied_tensors
from binarize.special_file import why_special

__all__ = ["RECORD", "has_record", "make_record", "read_json", "read_record", "versions"]

RECORD = "binarize.json"
# Records of networks of a thousand layers have a few MiB.
_MOST_BYTES = 1 << 26


def make_record(model: nn.Module, conversion: Conversion) -> dict[str, Any]:
    """What is written about a converted model, as JSON values."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "versions": versions(),
        "source": conversion.source.to_json(),
        "plan": conversion.plan.to_json(),
        "rules": conversion.rules.to_json(),
        "seed": conversion.seed,
        "command": conversion.command,
        "seen": conversion.seen.to_json(),
        "tied": tied_tensors(model),
        # Only what differs from the float model's defaults would do, but a list of all is easier to read and check.
        "modes": {name: module.training for name, module in model.named_modules()},
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        # Ends of names of tensors that older versions had none of, with the value that all of them had then.
        "absent": {},
        # Last digits of a convolution depend on how its weight lies in memory (channels_last).
        "strides": {
            name: value.stride()
            for name, value in tensors_of(model).items()
            if is_permuted(value.shape, value.stride())
        },
    }
    record = as_text(record)
    record["fingerprint"] = {
        "record": record_digest(record),
        "tensors": tensor_digest(unique_tensors(model)),
        "machine": machine(),
        "output": output_digest(model, conversion.source),
    }
    return record


def has_record(folder: Path) -> bool:
    """Whether a model was saved into this folder."""
    return is_file(folder / RECORD)


def read_record(folder: Path) -> dict[str, Any]:
    """The record in a saved model's folder, checked and in the newest format.

    Raises: SourceError, where the folder is not one of ours, or damaged; CheckError, where the record was changed.
    """
    wanted = "expected a folder that binarize convert or binarize.save wrote"
    recover(folder)
    if not is_folder(folder):
        raise SourceError(f"{folder}: no such folder; {wanted}")
    path = folder / RECORD
    if not path.is_file():
        raise SourceError(f"{folder}: holds no {RECORD}; {wanted}")
    _refuse_special_files(folder)
    read = read_json(path)
    record = migrate(read, str(path))
    check_record(record, str(path))
    # Older formats were other records; what they said is checked by their tensors alone.
    if read["format"] == FORMAT and record["fingerprint"].get("record") != record_digest(record):
        raise CheckError(
            f"{path}: was changed after it was saved (sha256 differs)\n  convert the float model again"
        )
    return record


def _refuse_special_files(folder: Path) -> None:
    """Every reader of a folder comes through here, so that none waits for a pipe that stands for one of its files.

    Raises: SourceError, where there is one.
    """
    for path in (*folder.iterdir(), *folder.glob("checkpoints/*")):
        if (why := why_special(path)) is not None:
            raise SourceError(f"{path}: {why}")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises: SourceError, where there is none, or far more than is ever written."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SourceError(f"{path}: has more than {_MOST_BYTES >> 20} MiB; such files have far less")
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: damaged or missing: {error}") from error


def versions() -> dict[str, str]:
    """Of this package and of what computes for it."""
    import torch

    found = {
        "binarize": binarize.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    for name in ("torchvision", "timm"):
        if importlib.util.find_spec(name) is not None:
            found[name] = importlib.metadata.version(name)
    return found
