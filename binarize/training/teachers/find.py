"""Who teaches: the float model that was converted, unless another is named, or none."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from binarize.checkpoint.float_model import named_float
from binarize.checkpoint.load import load
from binarize.conversion.conversion import conversion_of
from binarize.conversion.float_twin import float_mark
from binarize.conversion.source_record import SourceRecord
from binarize.disk.file_name import is_folder
from binarize.errors import BinarizeWarning, SourceError, UsageError, way
from binarize.inputs.seen import Preprocessing
from binarize.modules.float_check import bare
from binarize.sources import load as load_source
from binarize.sources import load_file
from binarize.sources.architectures import split as split_builder
from binarize.training.data.preprocessing import preprocessing_of
from binarize.training.teachers.teacher import Teacher
from binarize.trust import check_builder, trusting

__all__ = ["Teachers", "find_teachers"]

# What names a teacher: "source", "none", a folder, "timm:NAME", a file, or the model itself.
TeacherName = str | Path | nn.Module
# A named source of these kinds has random weights unless a tag of weights was downloaded.
_RANDOM_UNLESS_TAGGED = ("torchvision", "timm")
_FILES = ("pickle", "state_dict", "safetensors")
_SAY = "name it yourself: --teacher or --float (teacher=...), or none"


@dataclass(frozen=True)
class Teachers:
    """The teachers of a training, what they are called, and why there is none where one might expect one."""

    teachers: tuple[Teacher, ...] = ()
    names: tuple[str, ...] = ()
    why_none: str = ""

    def __str__(self) -> str:
        return ", ".join(self.names) or f"none{f' ({self.why_none})' if self.why_none else ''}"


def find_teachers(
    model: nn.Module,
    which: TeacherName | Sequence[TeacherName] | None,
    preprocessing: Preprocessing | None = None,
    *,
    fetch: bool = True,
) -> Teachers:
    """The teachers that `which` names, for a model that sees images preprocessed like this.

    `which` is the user's own word: it may be code. "source" is the float model that was converted: as long as it is alive,
    else loaded again from where it came. A source of random weights has nothing to teach. "timm:NAME" and
    "torchvision:NAME" mean their published weights, and download them; without `fetch` they are taken from this disk alone.
    The weights of a source are always.

    Raises: UsageError, SourceError where a teacher cannot be had.
    """
    asked = [which] if isinstance(which, (str, Path, nn.Module)) or which is None else list(which)
    found: list[Teacher] = []
    names: list[str] = []
    why = ""
    for one in asked:
        if one is None or one == "none":
            continue
        if one == "source":
            module, reason = _source(model)
            if module is None:
                why = reason
                continue
        else:
            module = _named(one, fetch) if isinstance(one, (str, Path)) else bare(one)
            if (record := _made_by(one, model)) is not None:
                _compare_weights(record, str(one), module)
        if module is model:
            raise UsageError("the model cannot be its own teacher; give the float model, or a copy")
        # The model's own source was trained on what the user says the images are like, whatever its configuration says.
        found.append(Teacher(module) if _is_source(one, module, model) else _teacher(module, preprocessing))
        names.append(type(one).__name__ if isinstance(one, nn.Module) else str(one))
    return Teachers(tuple(found), tuple(names), why)


def _is_source(name: TeacherName, module: nn.Module, model: nn.Module) -> bool:
    conversion = conversion_of(model)
    original = None if conversion is None or conversion.original is None else conversion.original()
    return name == "source" or module is original


def _made_by(name: TeacherName, model: nn.Module) -> SourceRecord | None:
    """The record of a model that was converted from what this function or class of the user's made; else None."""
    conversion = conversion_of(model)
    code = None if conversion is None or not isinstance(name, str) else conversion.source.code
    if conversion is None or code is None or conversion.source.kind != "factory":
        return None
    same = Path(code.rpartition(":")[0]).name == Path(str(name).rpartition(":")[0]).name
    return conversion.source if same and code.rpartition(":")[2] == str(name).rpartition(":")[2] else None


def _source(model: nn.Module) -> tuple[nn.Module | None, str]:
    """(the float model, "") or (None, why it has nothing to teach)."""
    conversion = conversion_of(model)
    if conversion is None:
        return None, "the model was not converted from another"
    record = conversion.source
    if conversion.named_source is not None:
        return _named_source(record, conversion.named_source), ""
    if record.kind in _RANDOM_UNLESS_TAGGED and record.weights is None:
        return None, f"the weights of {record.spec} are random"
    if record.weights is not None and record.num_classes is not None:
        return None, f"the head of {record.spec} is random"
    if conversion.original is not None and (module := conversion.original()) is not None:
        return module, ""
    if record.kind in _FILES:
        return _from_file(record, conversion.said), ""
    if record.weights is not None:
        if not conversion.said:
            check_builder(record.spec, "source.spec of the saved model", _SAY)
        return load_source(record.spec, weights=record.weights, fetch=conversion.said).module, ""
    code = record.code or "file.py:make_model"
    raise UsageError(
        f"the float model ({record.class_path}) that was to teach is not at hand any more\n"
        f"  give it: {way(f'--source {shlex.quote(code)}', f'teacher=float_model, or load with source={code!r}')}; "
        f"or train on labels alone: {way('--teacher ', 'teacher=')}none"
    )


def _named_source(record: SourceRecord, named: str) -> nn.Module:
    """The float model that the user names in this call; where its weights lie in a file, its architecture."""
    if record.kind in _FILES and record.code is not None:
        with trusting(named.partition(":")[0]):
            return _from_file(replace(record, arch=named), said=False)
    module = named_float(record, named)
    _compare_weights(record, named, module)
    return module


def _compare_weights(record: SourceRecord, named: str, module: nn.Module) -> None:
    """Warn where the user's code makes the same float model with other weights than at the conversion."""
    if record.float_weights is None:
        return
    now = float_mark(module, list(module.state_dict()))
    if now != record.float_weights:
        warnings.warn(
            f"{named} gives other float weights than at the conversion (their digests differ): what is fitted to or "
            "compared with is not the model that was converted\n  a function that loads its weights, or seeds them, gives "
            "the same ones each time",
            BinarizeWarning,
            stacklevel=2,
        )


def _from_file(record: SourceRecord, said: bool) -> nn.Module:
    """The float model from its file, if that is still the same. What the user said in this process may name code."""
    options: dict[str, Any] = {"arch": record.arch, "num_classes": record.num_classes}
    if said:
        source = load_source(record.spec, trust_pickle=record.trusted_pickle, **options)
    else:
        source = load_file(record.spec, sha256=record.sha256, **options)
    if source.sha256 != record.sha256:
        raise SourceError(
            f"{record.spec} is another file than the one that was converted (sha256 differs), so it cannot teach\n"
            "  name a teacher, or none"
        )
    return source.module


def _named(name: str | Path, fetch: bool) -> nn.Module:
    text = str(name)
    if is_folder(text):
        return load(text)
    published = split_builder(text) is not None
    return load_source(text, weights="default" if published else None, fetch=fetch).module


def _teacher(module: nn.Module, student: Preprocessing | None) -> Teacher:
    """The module as a teacher, with the change from the student's normalization to its own where they differ."""
    if student is None or not isinstance(getattr(module, "pretrained_cfg", None), dict):
        return Teacher(module)
    own = preprocessing_of(module)
    if (own.mean, own.std) == (student.mean, student.std) or len(own.mean) != len(student.mean):
        return Teacher(module)
    # (x * std + mean - own mean) / own std, from x normalized for the student.
    mean, std = _tensor(student.mean), _tensor(student.std)
    return Teacher(module, std / _tensor(own.std), (mean - _tensor(own.mean)) / _tensor(own.std))


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)
