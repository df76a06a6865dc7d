"""What every exporter starts from: the model frozen and packed, and arguments of the shapes that it takes.

The packed model is compared with the frozen form of the trained one before anything is written, bit for bit: a packed
file is a copy, and what is shipped has to be the model that was trained.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from binarize.checkpoint.load import load
from binarize.checkpoint.record import has_record, read_record
from binarize.conversion.conversion import conversion_of
from binarize.conversion.source_record import SourceRecord
from binarize.disk.file_name import is_file, is_there
from binarize.errors import CheckError, SourceError, UsageError, way
from binarize.inputs.arguments import Arguments, TensorKind, arguments_of
from binarize.modules.float_check import bare
from binarize.packed.agreement import answers_of, are_equal
from binarize.packed.file.contents import contents_of
from binarize.packed.file.tables import Rest
from binarize.packed.file.unpacking import read_packed
from binarize.packed.freeze import Example, Frozen, frozen_record, pack_layers
from binarize.packed.packing import PACKED, freeze, open_or_make

__all__ = ["Prepared", "compared", "prepared"]


@dataclass(frozen=True)
class Prepared:
    """A packed model, the arguments of one forward call, and what has to be said about where it comes from."""

    model: nn.Module
    example: Example
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def prepared(
    model: nn.Module | str | Path, example_input: object, source: str | None
) -> tuple[nn.Module, Example]:
    """(a packed copy of the model, the arguments of one forward call); see `compared`."""
    done = compared(model, example_input, source)
    return done.model, done.example


def compared(model: nn.Module | str | Path, example_input: object, source: str | None) -> Prepared:
    """A packed copy of the model, and its arguments: those given, else noise of the known shapes.

    Raises: UsageError, where the model was not converted, or its inputs are unknown; CheckError, where the packed
    model computes something else than the frozen form of the trained one.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        if is_file(path) or is_there(path / PACKED):
            return _from_file(path, example_input, source)
        record = SourceRecord.from_json(read_record(path)["source"])
        return _from_trained(load(path, source=source), example_input, record.example)
    model = bare(model)
    conversion, found = conversion_of(model), frozen_record(model)
    if found is not None:
        frozen = copy.deepcopy(model)
        return _checked(
            frozen, pack_layers(copy.deepcopy(model)), _example(example_input, model, _floats(found))
        )
    if conversion is None:
        raise UsageError(
            "export: the model was not made by binarize.convert; convert it, or name a saved folder"
        )
    return _from_trained(model, example_input, conversion.source.example)


def _from_trained(model: nn.Module, given: object, known: Arguments | None) -> Prepared:
    frozen = freeze(model, given)
    return _checked(frozen, pack_layers(copy.deepcopy(frozen)), _example(given, frozen, known))


def _from_file(path: Path, given: object, source: str | None) -> Prepared:
    """What a packed file holds, or the folder's weights where these are others by now."""
    file, folder = (path / PACKED, path) if path.is_dir() else (path, path.parent)
    packed, remark = open_or_make(path, source=source)
    warnings = () if remark is None else (remark,)
    if not has_record(folder):
        example = _example(given, packed, _floats(frozen_record(packed)))
        return Prepared(
            packed, example, ("The packed file stands alone: no trained model to compare it with.",)
        )
    origin = SourceRecord.from_json(read_record(folder)["source"])
    example = _example(given, packed, origin.example)
    try:
        trained = load(folder, source=source)
    except SourceError as error:
        reason = str(error).partition("\n")[0]
        said = f"{file} was not compared with the trained model, whose digest it carries: {reason}"
        return Prepared(packed, example, (), (*warnings, said))
    frozen = freeze(trained, given)
    done = _checked(frozen, packed, example, read_packed(file)[0].kept_as)
    return Prepared(done.model, example, done.lines, warnings)


def _checked(frozen: nn.Module, packed: nn.Module, example: Example, rest: Rest = "fp32") -> Prepared:
    """Raises: CheckError, where a packed model is not the frozen one with what stays float rounded to `rest`."""
    if rest != "fp32":
        frozen = pack_layers(frozen)
        contents_of(frozen, rest)
    expected = answers_of(frozen, example)
    if not are_equal(answers_of(packed, example), expected):
        raise CheckError(
            "the packed model computes something else than the trained model's frozen form; nothing was written\n"
            "  pack the model again (binarize pack --force)"
        )
    if expected is None:
        return Prepared(packed, example)
    rounded = "" if rest == "fp32" else f", what stays float rounded to {rest}"
    return Prepared(
        packed, example, (f"Packed as trained: it equals the trained model's frozen form{rounded}.",)
    )


def _floats(record: Frozen | None) -> Arguments | None:
    """What a packed file alone tells of the input: shapes."""
    return Arguments(tuple(TensorKind(shape) for shape in record.input_shapes)) if record else None


def _example(given: object, model: nn.Module, known: Arguments | None) -> Example:
    if given is not None:
        return arguments_of(given)
    if known is None or not known.kinds:
        raise UsageError(
            "export: the inputs of the model are unknown; "
            + way("convert it with --input-shape", "give example_input=...")
        )
    return known.make(model)
