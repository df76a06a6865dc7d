"""A saved model packed to one bit a weight, and read back: `packed.safetensors` beside the latent weights.

Where the frozen model traces as a whole, the file holds its graph as data and is a model by itself. Elsewhere what the
model computes with the file's numbers stands in the folder's record: reading it rebuilds the float model, replays the
plan's edits, and puts a packed layer in each binary one's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.atomic import whole_file
from binarize.capture.outputs import tensors_in
from binarize.capture.shadow import silenced_hooks
from binarize.checkpoint import load, rebuild
from binarize.conversion import SourceRecord, conversion_of, forget
from binarize.cost import totals
from binarize.errors import CheckError, SourceError, UsageError
from binarize.fingerprint import record_digest
from binarize.liveness import arguments_of, evaluating
from binarize.packed.contents import alone, contents_of, fill, theory
from binarize.packed.drift import Drift, measure_drift
from binarize.packed.file import read_file, write_file
from binarize.packed.freeze import Example, Frozen, frozen_record, pack_layers
from binarize.packed.freeze import freeze as freeze_model
from binarize.packed.fuse import fuse as fuse_model
from binarize.packed.graph.trace import graph_of
from binarize.packed.layers import PackedLayer
from binarize.packed.tables import Rest
from binarize.plan import Plan
from binarize.record import has_record, read_record

__all__ = ["PACKED", "Packing", "Sizes", "freeze", "fuse", "load_packed", "pack"]

PACKED = "packed.safetensors"
# Random inputs on which the frozen model is compared with the trained one.
_DRIFT_INPUTS = 4
# What models raise that take something else than float tensors.
_OTHER_INPUTS = (RuntimeError, TypeError, ValueError, IndexError)


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

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        drift = None if self.drift is None else self.drift.to_json()
        return {**asdict(self), "path": str(self.path), "drift": drift}


def freeze(model: nn.Module, example_input: Any = None) -> nn.Module:
    """The inference form of a converted model, on a copy: each binary layer as signs and one affine map.

    `example_input`: a tensor, a tuple of arguments or a dict of keyword arguments; without it, zeros of the shapes that
    the model was converted with. On it the model is recorded, so that BatchNorm behind a layer goes into the layer.

    Raises: UsageError, where the model has no binary layer, or the example is of another kind.
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
    example = _noise(trained, conversion.source)
    frozen = freeze(trained)
    expected = _answers(frozen, example)
    packed = pack_layers(frozen)
    record = frozen_record(packed)
    assert record is not None
    if not _are_equal(_answers(packed, example), expected):
        raise CheckError(
            f"{path}: the kernels compute something else than the frozen model\n  BINARIZE_KERNELS=reference goes without"
        )
    graph = _graph(packed, example)
    contents = contents_of(packed, rest, {} if isinstance(graph, str) else graph[1])
    # Of the numbers that the file has: what stays float is rounded to `rest` by now.
    drift = None if example is None else _drift(trained, packed, example)
    about = {**contents.about, "record": _record_digest(read_record(path))}
    with whole_file(target) as draft:
        needs = graph if isinstance(graph, str) else None
        if not isinstance(graph, str):
            write_file(draft, replace(contents, about={**about, "graph": graph[0]}), rest)
            needs = _differs(draft, packed, example)
        if needs is not None:
            write_file(draft, replace(contents, about=about), rest)
            again = _loaded(draft, path, model, source)
            if not _are_equal(_answers(again, example), _answers(packed, example)):
                raise CheckError(
                    f"{target}: computes something else when it is read back; nothing was written"
                )
    return Packing(
        target,
        rest,
        _sizes(conversion.plan, theory(contents, rest), target),
        record,
        len(contents.layers),
        sum(layer.float_input for layer in contents.layers.values()),
        drift,
        needs,
    )


def _graph(packed: nn.Module, example: Example | None) -> tuple[dict[str, Any], dict[str, Tensor]] | str:
    if example is None:
        return "nobody knows which inputs the model takes"
    if _answers(packed, example) is None:
        return "the model does not run on random inputs, so that its trace cannot be checked"
    return graph_of(packed, *example)


def _differs(file: Path, packed: nn.Module, example: Example | None) -> str | None:
    """In words why a file with a graph is not the packed model; None where it is, for batches of any size."""
    try:
        again = alone(read_file(file))
    except (SourceError, UsageError) as error:
        return f"its graph cannot be read back ({str(error)[:160]})"
    for batch in (example, _longer(example)):
        expected = _answers(packed, batch)
        if expected is not None and not _are_equal(_answers(again, batch), expected):
            return "its trace computes something else than the model"
    return None


def load_packed(path: str | Path, *, model: nn.Module | None = None, source: str | None = None) -> nn.Module:
    """The packed model in a folder, or in a packed file, ready to run; bit-equal to the one written.

    Where the file holds the model's graph, it is enough by itself: neither the folder nor the float model's code is
    needed. Elsewhere, or to get an object of the float model's class, its folder has to stand beside it, and where that
    class is the user's own, give the float model (it is copied, its weights do not matter) or a `source` that makes it,
    such as "file.py:make_model".

    Raises: SourceError, where a file is missing, damaged or belongs to another model; what `binarize.load` raises.
    """
    path = Path(path)
    file, folder = (path / PACKED, path) if path.is_dir() else (path, path.parent)
    return _loaded(file, folder, model, source)


def fuse(model: nn.Module, example_input: Any) -> nn.Module:
    """A packed model (from `load_packed`) as a copy with fewer passes over memory: the form that is fast.

    Adds, activations and the signs of the next layer become part of a layer's kernel, norms of float layers are folded,
    and stems run in a kernel of their own. It is for inputs of the size of `example_input`, a tensor or a tuple of
    tensors; the batch may differ. What the kernels compute are the same bits; folded norms round otherwise, so that
    logits agree as those of two float programs do, and an input next to a threshold may fall on its other side.

    Raises: UsageError, where the model has no packed layer, or takes keyword arguments; CaptureError, where it cannot
    be traced as a whole.
    """
    if not any(isinstance(module, PackedLayer) for module in model.modules()):
        raise UsageError("fuse: the model has no packed layer; give what `binarize.load_packed` returns")
    arguments, keywords = arguments_of(example_input)
    if keywords:
        raise UsageError("fuse: example_input is a dict; expected a tensor or a tuple of tensors")
    return fuse_model(model, *arguments)


def _loaded(file: Path, folder: Path, model: nn.Module | None, source: str | None) -> nn.Module:
    contents = read_file(file)
    stands_alone = contents.about.get("graph") is not None and model is None and source is None
    record = None if stands_alone and not has_record(folder) else read_record(folder)
    if record is not None and contents.about.get("record") != _record_digest(record):
        raise SourceError(f"{file}: belongs to another model than {folder}\n  binarize pack {folder} --force")
    try:
        if record is None or stands_alone:
            return alone(contents)
        rebuilt, _, _ = rebuild(folder, record, model=model, source=source)
        fill(rebuilt, contents)
    except UsageError as error:
        raise SourceError(f"{file}: its parts do not fit together: {error}") from error
    return rebuilt


def _record_digest(record: Mapping[str, Any]) -> str:
    """What ties a packed file to its folder; written anew for records of older formats, which had none."""
    return str(record["fingerprint"].get("record") or record_digest(record))


def _example(model: nn.Module, given: Any) -> Example | None:
    if given is not None:
        return arguments_of(given)
    conversion = conversion_of(model)
    return None if conversion is None else conversion.source.inputs(model, noise=False)


def _noise(model: nn.Module, origin: SourceRecord) -> Example | None:
    return origin.inputs(model, batch=_DRIFT_INPUTS)


def _longer(example: Example | None) -> Example | None:
    """The same inputs and one more."""
    return pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x[:1]]), example)


def _drift(trained: nn.Module, packed: nn.Module, example: Example) -> Drift | None:
    try:
        return measure_drift(trained, packed, *example)
    except _OTHER_INPUTS:
        return None


def _answers(model: nn.Module, example: Example | None) -> list[Tensor] | None:
    """What a model gives for noise; None where it takes other inputs (integers, structures)."""
    if example is None:
        return None
    with silenced_hooks(model), evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output = model(*example[0], **example[1])
        except _OTHER_INPUTS:
            return None
    return tensors_in(output)


def _are_equal(found: list[Tensor] | None, expected: list[Tensor] | None) -> bool:
    """Bit for bit, also where a model gives no number (NaN)."""
    if found is None or expected is None:
        return found is expected
    return len(found) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        for a, b in zip(found, expected)
    )


def _sizes(plan: Plan, least: int, file: Path) -> Sizes:
    planned = totals(plan.decisions, plan.other_params, plan.other_buffers, plan.schemes)
    size = file.stat().st_size
    return Sizes(planned.float_bytes, planned.latent_bytes, planned.int8_bytes, least, size)
