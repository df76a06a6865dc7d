"""A saved model packed to one bit a weight, and read back: `packed.safetensors` beside the latent weights.

The file holds numbers; what the model computes with them stands in the folder's record, as for the latent weights.
So reading it rebuilds the float model, replays the plan's edits, and puts a packed layer in each binary one's place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from binarize.checkpoint import load, read_record, rebuild
from binarize.conversion import SourceRecord, conversion_of, forget
from binarize.cost import totals
from binarize.errors import CheckError, SourceError, UsageError
from binarize.fingerprint import output_digest, record_digest
from binarize.packed.contents import contents_of, fill, theory
from binarize.packed.drift import Drift, measure_drift
from binarize.packed.file import read_file, write_file
from binarize.packed.freeze import Example, Frozen, frozen_record, pack_layers, remember_frozen
from binarize.packed.freeze import freeze as freeze_model
from binarize.packed.tables import Rest
from binarize.plan import Plan

__all__ = ["PACKED", "Packing", "Sizes", "freeze", "load_packed", "pack"]

PACKED = "packed.safetensors"
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

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        drift = None if self.drift is None else self.drift.to_json()
        return {**asdict(self), "path": str(self.path), "drift": drift}


def freeze(model: nn.Module, example_input: Any = None) -> nn.Module:
    """The inference form of a converted model, on a copy: each binary layer as signs and one affine map.

    `example_input`: a tensor, a tuple of arguments or a dict of keyword arguments; without it, zeros of the shapes that
    the model was converted with. On it the model is recorded, so that BatchNorm behind a layer goes into the layer.

    Raises: UsageError, where the model has no binary layer.
    """
    frozen = freeze_model(model, _example(model, example_input))
    forget(frozen)
    return frozen


def pack(
    folder: str | Path,
    *,
    rest: Rest = "fp32",
    force: bool = False,
    model: nn.Module | None = None,
    source: str | None = None,
) -> Packing:
    """Write `packed.safetensors` into a saved model's folder: one bit a binary weight, what stays float as `rest`.

    `model` and `source` are those of `binarize.load`. The file is read back and must compute the same, bit for bit.

    Raises: UsageError, where the file exists and `force` does not allow to replace it; CheckError, where it computes
    something else when it is read back; what `binarize.load` raises.
    """
    path = Path(folder)
    target = path / PACKED
    if target.exists() and not force:
        raise UsageError(f"{target} exists already; --force (force=True) replaces it")
    trained = load(path, model=model, source=source).eval()
    conversion = conversion_of(trained)
    assert conversion is not None
    frozen = freeze(trained)
    expected = output_digest(frozen, conversion.source)
    packed = pack_layers(frozen)
    record = frozen_record(packed)
    assert record is not None
    if output_digest(packed, conversion.source) != expected:
        raise CheckError(
            f"{path}: the kernels compute something else than the frozen model\n  BINARIZE_KERNELS=reference goes without"
        )
    drift = _drift(trained, packed, conversion.source)
    contents = contents_of(packed, rest)
    contents = replace(contents, about={**contents.about, "record": _record_digest(read_record(path))})
    draft = target.with_name(f".{PACKED}.draft")
    try:
        write_file(draft, contents, rest)
        again = _loaded(draft, path, model, source)
        if output_digest(again, conversion.source) != output_digest(packed, conversion.source):
            raise CheckError(f"{target}: computes something else when it is read back; nothing was written")
        _sync(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return Packing(
        target,
        rest,
        _sizes(conversion.plan, theory(contents, rest), target),
        record,
        len(contents.layers),
        sum(layer.float_input for layer in contents.layers.values()),
        drift,
    )


def load_packed(path: str | Path, *, model: nn.Module | None = None, source: str | None = None) -> nn.Module:
    """The packed model in a folder, or in the packed file of one, ready to run; bit-equal to the one written.

    Where the float model's class is the user's own, give the float model (it is copied, its weights do not matter) or a
    `source` that makes it, such as "file.py:make_model".

    Raises: SourceError, where a file is missing, damaged or belongs to another model; what `binarize.load` raises.
    """
    path = Path(path)
    file, folder = (path / PACKED, path) if path.is_dir() else (path, path.parent)
    return _loaded(file, folder, model, source)


def _loaded(file: Path, folder: Path, model: nn.Module | None, source: str | None) -> nn.Module:
    contents = read_file(file)
    record = read_record(folder)
    if contents.about.get("record") != _record_digest(record):
        raise SourceError(f"{file}: belongs to another model than {folder}\n  binarize pack {folder} --force")
    rebuilt, _, _ = rebuild(folder, record, model=model, source=source)
    try:
        fill(rebuilt, contents)
    except UsageError as error:
        raise SourceError(f"{file}: does not fit the rebuilt model: {error}") from error
    shapes = SourceRecord.from_json(record["source"]).input_shapes
    found = frozen_record(rebuilt)
    assert found is not None
    remember_frozen(rebuilt, replace(found, input_shapes=shapes))
    return rebuilt


def _record_digest(record: Mapping[str, Any]) -> str:
    """What ties a packed file to its folder; written anew for records of older formats, which had none."""
    return str(record["fingerprint"].get("record") or record_digest(record))


def _example(model: nn.Module, given: Any) -> Example | None:
    if isinstance(given, Tensor):
        return (given,), {}
    if isinstance(given, Mapping):
        return (), dict(given)
    if isinstance(given, (list, tuple)):
        return tuple(given), {}
    conversion = conversion_of(model)
    return None if conversion is None else _inputs(model, conversion.source, torch.zeros)


def _inputs(model: nn.Module, origin: SourceRecord, make: Any) -> Example | None:
    """Tensors of the shapes that the model was converted with; None where it takes none."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not (origin.input_shapes or origin.keyword_shapes):
        return None

    def made(shape: tuple[int, ...]) -> Tensor:
        tensor: Tensor = make(shape).to(device=parameter.device, dtype=parameter.dtype)
        return tensor

    keywords = {name: made(shape) for name, shape in origin.keyword_shapes.items()}
    return tuple(made(shape) for shape in origin.input_shapes), keywords


def _drift(trained: nn.Module, packed: nn.Module, origin: SourceRecord) -> Drift | None:
    generator = torch.Generator().manual_seed(0)

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn((_DRIFT_INPUTS, *shape[1:]), generator=generator)

    example = _inputs(trained, origin, noise)
    if example is None:
        return None
    try:
        return measure_drift(trained, packed, *example)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None  # integer or structured inputs


def _sizes(plan: Plan, least: int, file: Path) -> Sizes:
    planned = totals(plan.decisions, plan.other_params, plan.other_buffers, plan.schemes)
    size = file.stat().st_size
    return Sizes(planned.float_bytes, planned.latent_bytes, planned.int8_bytes, least, size)


def _sync(path: Path) -> None:
    """Force what was written to the disk, before a rename makes it the truth."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
