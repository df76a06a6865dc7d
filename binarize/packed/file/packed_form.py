"""A trained model -> its packed form in a file, read back and compared, with what is found out about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from binarize.checkpoint.load import load
from binarize.checkpoint.record import read_record
from binarize.conversion.conversion import conversion_of, forget
from binarize.errors import CheckError, SourceError, UsageError
from binarize.packed.agreement import OTHER_INPUTS, answers_of, are_equal, longer
from binarize.packed.drift import Drift, measure_drift
from binarize.packed.file.contents import alone, contents_of, theory
from binarize.packed.file.format import read_file, write_file
from binarize.packed.file.provenance import made_of_folder, tie_of
from binarize.packed.file.tables import Rest
from binarize.packed.file.unpacking import open_packed
from binarize.packed.freeze import (
    Example,
    Frozen,
    MadeOf,
    freeze,
    frozen_record,
    pack_layers,
    remember_frozen,
)
from binarize.packed.graph.lines import with_lines
from binarize.packed.graph.trace import graph_of
from binarize.planning.cost import totals
from binarize.planning.plan import Plan

__all__ = ["Packing", "Sizes", "packed_form", "write_packed"]

# Random inputs on which the frozen model is compared with the trained one.
_DRIFT_INPUTS = 4


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model in its forms."""

    # The float source; in training, latent weights and all that the conversion added; one byte a binary weight.
    float_bytes: int
    latent_bytes: int
    int8_bytes: int
    # The least that the packed numbers take: one bit a binary weight, the others in the chosen types.
    theory: int
    # The file with its names and checks.
    file: int

    @property
    def over_theory(self) -> float:
        """Share of the theory that the file takes more."""
        return self.file / self.theory - 1


@dataclass(frozen=True)
class Packing:
    """What `pack` wrote, and what it found out about it."""

    path: Path
    rest: Rest
    sizes: Sizes
    frozen: Frozen
    # Packed layers, and among them those that read float inputs.
    layers: int
    float_inputs: int
    # None where the model takes other inputs than images of known shapes.
    drift: Drift | None
    # Why the file alone is no model, so that reading it needs the folder or the float model; None where it is one.
    needs: str | None
    # In words what was wrong with the file that stood there, where it was made of something else than this one.
    replaced: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        drift = None if self.drift is None else self.drift.to_json()
        return {**asdict(self), "path": str(self.path), "drift": drift}


def write_packed(
    file: Path,
    folder: Path,
    record: Mapping[str, Any],
    rest: Rest,
    model: nn.Module | None,
    source: str | None,
) -> Packing:
    """Pack a folder's model into a file, and read that back."""
    trained = load(folder, model=model, source=source).eval()
    conversion = conversion_of(trained)
    assert conversion is not None
    made_of = made_of_folder(record)
    if made_of_folder(read_record(folder)) != made_of:
        raise CheckError(f"{folder}: was replaced while it was read; nothing was written\n  pack it again")
    example = conversion.source.inputs(trained, batch=_DRIFT_INPUTS)
    built = packed = packed_form(trained, example, made_of, folder)
    frozen = frozen_record(packed)
    assert frozen is not None
    # Rounded numbers of a nonlinearity are not the numbers of its rounded lines.
    standing = with_lines(packed) if rest == "fp32" else packed
    graph = _graph(standing, example)
    if not isinstance(graph, str):
        packed = standing
    contents = contents_of(packed, rest, {} if isinstance(graph, str) else graph[1])
    # Of the numbers that the file has: what stays float is rounded to `rest` by now.
    drift = None if example is None else _drift(trained, packed, example)
    about = {**contents.about, "record": tie_of(record)}
    needs = graph if isinstance(graph, str) else None
    if not isinstance(graph, str):
        write_file(file, replace(contents, about={**about, "graph": graph[0]}), rest)
        needs = _differs(file, packed, example)
    if needs is not None:
        if packed is not built:  # without a graph the folder says what is there
            packed = built
            contents = contents_of(packed, rest)
            about = {**contents.about, "record": tie_of(record)}
        write_file(file, replace(contents, about=about), rest)
        again = open_packed(file, read_file(file), folder, record, model, source)
        if not are_equal(answers_of(again, example), answers_of(packed, example)):
            raise CheckError(
                f"{folder}: the packed model computes something else when it is read back; nothing was written"
            )
    sizes = _sizes(conversion.plan, theory(contents, rest), file)
    floats = sum(layer.float_input for layer in contents.layers.values())
    return Packing(file, rest, sizes, frozen, len(contents.layers), floats, drift, needs)


def packed_form(trained: nn.Module, example: Example | None, made_of: MadeOf, folder: Path) -> nn.Module:
    """A trained model frozen and packed. Raises: CheckError, where the kernels compute something else than plain torch."""
    conversion = conversion_of(trained)
    frozen = freeze(trained, None if conversion is None else conversion.source.inputs(trained, noise=False))
    forget(frozen)
    record = frozen_record(frozen)
    assert record is not None
    remember_frozen(frozen, replace(record, made_of=made_of))
    expected = answers_of(frozen, example)
    packed = pack_layers(frozen)
    if not are_equal(answers_of(packed, example), expected):
        raise CheckError(
            f"{folder}: the kernels compute something else than the frozen model\n"
            "  BINARIZE_KERNELS=reference goes without"
        )
    return packed


def _graph(packed: nn.Module, example: Example | None) -> tuple[dict[str, Any], dict[str, Tensor]] | str:
    if example is None:
        return "the inputs of the model are unknown"
    if answers_of(packed, example) is None:
        return "the model does not run on random inputs, so that its trace cannot be checked"
    return graph_of(packed, *example)


def _differs(file: Path, packed: nn.Module, example: Example | None) -> str | None:
    """In words why a file with a graph is not the packed model; None where it is, for batches of any size."""
    try:
        again = alone(read_file(file))
    except (SourceError, UsageError) as error:
        return f"its graph cannot be read back ({str(error)[:160]})"
    for batch in (example, longer(example)):
        expected = answers_of(packed, batch)
        if expected is not None and not are_equal(answers_of(again, batch), expected):
            return "its trace computes something else than the model"
    return None


def _drift(trained: nn.Module, packed: nn.Module, example: Example) -> Drift | None:
    try:
        return measure_drift(trained, packed, *example)
    except OTHER_INPUTS:
        return None


def _sizes(plan: Plan, least: int, file: Path) -> Sizes:
    planned = totals(plan.decisions, plan.other_params, plan.other_buffers, plan.schemes)
    size = file.stat().st_size
    return Sizes(planned.float_bytes, planned.latent_bytes, planned.int8_bytes, least, size)
