"""A saved model packed to one bit a weight, and read back: `packed.safetensors` beside the latent weights.

Where the frozen model traces as a whole, the file holds its graph as data and is a model by itself. Elsewhere what the
model computes with the file's numbers stands in the folder's record: reading it rebuilds the float model, replays the
plan's edits, and puts a packed layer in each binary one's place.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from binarize.checkpoint.record import has_record, read_record
from binarize.checkpoint.save import save
from binarize.conversion.conversion import conversion_of, forget
from binarize.disk.atomic import whole_file
from binarize.disk.file_name import is_folder
from binarize.errors import CheckError, SourceError, UsageError, way
from binarize.inputs.arguments import arguments_of
from binarize.modules.copies import copy_model
from binarize.modules.float_check import bare
from binarize.packed.file.format import read_file
from binarize.packed.file.packed_form import Packing, Sizes, write_packed
from binarize.packed.file.provenance import made_of, made_of_folder, tie_of, why_stale
from binarize.packed.file.tables import Rest
from binarize.packed.file.unpacking import open_packed, read_packed, stands_alone
from binarize.packed.freeze import Example, frozen_record, remember_frozen
from binarize.packed.freeze import freeze as freeze_model
from binarize.packed.fused.fuse import fuse as fuse_model
from binarize.packed.layers import PackedLayer

__all__ = ["PACKED", "Packing", "Sizes", "freeze", "fuse", "load_packed", "open_or_make", "pack"]

PACKED = "packed.safetensors"


def freeze(model: nn.Module, example_input: object = None) -> nn.Module:
    """The inference form of a converted model, on a copy: each binary layer as signs and one affine map.

    `example_input`: a tensor, a tuple of arguments or a dict of keyword arguments; without it, zeros of the shapes that
    the model was converted with. On it the model is recorded, so that BatchNorm behind a layer goes into the layer.

    Raises: UsageError, where the model has no binary layer, or the example is of another kind.
    """
    model = bare(model)
    frozen, conversion = freeze_model(model, _example(model, example_input)), conversion_of(model)
    forget(frozen)
    record = frozen_record(frozen)
    if conversion is not None and record is not None:
        remember_frozen(frozen, replace(record, made_of=made_of(model, conversion)))
    return frozen


def pack(
    folder: str | Path | nn.Module,
    path: str | Path | None = None,
    *,
    rest: Rest = "fp32",
    force: bool = False,
    model: nn.Module | None = None,
    source: str | None = None,
) -> Packing:
    """Write `packed.safetensors` into a saved model's folder: one bit a binary weight, what stays float as `rest`.

    A converted model in memory takes the folder's place, and `path` then says which file to write; that file has to be a
    model by itself.

    `model` and `source` are those of `binarize.load`. The file is read back and must compute the same, bit for bit. One
    that was made of other weights than the folder holds now is made anew; `Packing.replaced` then says so.

    Raises: UsageError, where the file exists, is up to date and `force` does not allow to replace it; CheckError, where
    it computes something else when it is read back, or the folder is replaced meanwhile; what `binarize.load` raises.
    """
    if isinstance(folder, nn.Module):
        return _pack_module(bare(folder), path, rest, force)
    if path is not None:
        raise UsageError(f"pack: {PACKED} lies in the folder itself; path is for a model in memory alone")
    path = Path(folder)
    target = path / PACKED
    record = read_record(path)
    replaced = _why_replaced(target, record, force)
    # Elsewhere first: a folder that is replaced meanwhile takes a draft in it along.
    with tempfile.TemporaryDirectory(prefix="binarize-packed-") as drafts:
        draft = Path(drafts) / PACKED
        packing = write_packed(draft, path, record, rest, model, source)
        if made_of_folder(read_record(path)) != packing.frozen.made_of:
            raise CheckError(
                f"{path}: was replaced while it was packed; nothing was written\n  pack it again"
            )
        with whole_file(target) as place:
            shutil.copyfile(draft, place)
    return replace(packing, path=target, replaced=replaced)


def _pack_module(model: nn.Module, path: str | Path | None, rest: Rest, force: bool) -> Packing:
    """Raises: UsageError, where nothing says which file to write, it exists, or it would need a folder beside it."""
    conversion = conversion_of(model)
    if conversion is None:
        raise UsageError("pack: this model was not made by binarize.convert; convert it first")
    if path is None:
        raise UsageError('pack: a model in memory needs a path; expected pack(model, "net.safetensors")')
    target = Path(path) / PACKED if is_folder(path) else Path(path)
    if target.exists() and not force:
        raise UsageError(f"{target} exists already; {way('--force', 'force=True')} replaces it")
    original = None if conversion.original is None else conversion.original()
    with tempfile.TemporaryDirectory(prefix="binarize-packed-") as drafts:
        folder = save(model, Path(drafts) / "net", reports=())
        draft = Path(drafts) / PACKED
        float_model = original if original is not None else _with_memory(conversion.skeleton)
        packing = write_packed(draft, folder, read_record(folder), rest, float_model, None)
        if packing.needs is not None:
            raise UsageError(
                f"pack: {packing.needs}, so that its file needs its folder\n"
                "  save the model with binarize.save, and pack that folder"
            )
        with whole_file(target) as place:
            shutil.copyfile(draft, place)
    return replace(packing, path=target)


def _with_memory(skeleton: nn.Module | None) -> nn.Module | None:
    """A float model without data as one with data of any kind."""
    if skeleton is None:
        return None
    return copy_model(skeleton)._apply(lambda t: torch.empty_like(t, device="cpu") if t.is_meta else t)


def _why_replaced(target: Path, record: Mapping[str, Any], force: bool) -> str | None:
    """In words why a file that is there is stale; None where there is none, or it is replaced because it has to be.

    Raises: UsageError, where it may not be replaced.
    """
    if not target.exists():
        return None
    try:
        _, found = read_packed(target)
    except SourceError as error:
        if force:
            return None
        raise UsageError(f"{error}\n  {way('--force', 'force=True')} replaces it") from error
    why = why_stale(found, made_of_folder(record))
    if why is None and not force:
        raise UsageError(f"{target} exists already; {way('--force', 'force=True')} replaces it")
    return why


def load_packed(path: str | Path, *, model: nn.Module | None = None, source: str | None = None) -> nn.Module:
    """The packed model in a folder, or in a packed file, ready to run; bit-equal to the one written.

    Where the file holds the model's graph, it is enough by itself: neither the folder nor the float model's code is
    needed. Elsewhere, or to get an object of the float model's class, its folder has to stand beside it, and where that
    class is the user's own, give the float model (it is copied, its weights do not matter) or a `source` that makes it,
    such as "file.py:make_model".

    A folder is always answered by its own weights: where its packed file was made of others (the model was trained
    since), they are packed anew in memory, with a warning. A file that is named itself is refused then.

    Raises: SourceError, where a file is missing, damaged or belongs to another model; what `binarize.load` raises.
    """
    loaded, remark = open_or_make(Path(path), model=model, source=source)
    if remark is not None:
        warnings.warn(remark, stacklevel=2)
    return loaded


def open_or_make(
    path: Path, *, model: nn.Module | None = None, source: str | None = None
) -> tuple[nn.Module, str | None]:
    """(what `load_packed` gives, what has to be said about it).

    Raises: what `load_packed` raises.
    """
    file, folder = (path / PACKED, path) if is_folder(path) else (path, path.parent)
    contents, found = read_packed(file)
    if not has_record(folder):
        record = None if stands_alone(contents, model, source) else read_record(folder)
        return open_packed(file, contents, folder, record, model, source), None
    record = read_record(folder)
    why = why_stale(found, made_of_folder(record))
    if why is None:
        return open_packed(file, contents, folder, record, model, source), None
    if path.is_dir():
        return _made_anew(file, why, contents.kept_as, record, model, source)
    if found is not None or contents.about.get("record") != tie_of(record):
        raise SourceError(
            f"{file}: belongs to another model than {folder}: it {why if found else 'has another record'}\n"
            f"  binarize pack {folder} makes it anew; in a folder of its own it is read as it is"
        )
    return open_packed(file, contents, folder, record, model, source), f"{file} {why}; it was read as it is"


def _made_anew(
    file: Path,
    why: str,
    rest: Rest,
    record: Mapping[str, Any],
    model: nn.Module | None,
    source: str | None,
) -> tuple[nn.Module, str]:
    """(the packed form of the weights in the folder of a stale file, what to say of that)."""
    folder = file.parent
    with tempfile.TemporaryDirectory(prefix="binarize-packed-") as drafts:
        draft = Path(drafts) / PACKED
        try:
            write_packed(draft, folder, record, rest, model, source)
        except SourceError as error:
            raise SourceError(f"{file} {why}, and it cannot be made anew: {error}") from error
        loaded = open_packed(file, read_file(draft), folder, record, model, source)
    return loaded, f"{file} {why}; they were packed anew in memory, and binarize pack {folder} writes them"


def fuse(model: nn.Module, example_input: object) -> nn.Module:
    """A packed model (from `load_packed`) as a copy with fewer passes over memory: the form that is fast.

    Adds, activations and the signs of the next layer become part of a layer's kernel, norms of float layers are folded,
    and stems run in a kernel of their own. It is for inputs of the size of `example_input`, a tensor or a tuple of
    tensors; the batch may differ. What the kernels compute are the same bits; folded norms round otherwise, so that
    logits agree as those of two float programs do, and an input next to a threshold may fall on its other side. Modules
    of your own that cannot be traced run as they are, between the kernels.

    Raises: UsageError, where the model has no packed layer, or takes keyword arguments; CaptureError, where it cannot
    be traced as a whole.
    """
    model = bare(model)
    if not any(isinstance(module, PackedLayer) for module in model.modules()):
        raise UsageError("fuse: the model has no packed layer; give what `binarize.load_packed` returns")
    arguments, keywords = arguments_of(example_input)
    if keywords:
        raise UsageError("fuse: example_input is a dict; expected a tensor or a tuple of tensors")
    return fuse_model(model, *arguments)


def _example(model: nn.Module, given: object) -> Example | None:
    if given is not None:
        return arguments_of(given)
    conversion = conversion_of(model)
    return None if conversion is None else conversion.source.inputs(model, noise=False)
