"""packed.safetensors: a packed model's numbers, one bit a sign. Reading it runs nothing.

    bits          uint8     the canonical streams of all layers, one behind the other (see packed/pack.py)
    affine        float32   of each layer A of each plane, B, and C where there is one: (rows, out)
    threshold     float32   of each layer that compares with other numbers than 0: (planes, in), or (planes, 1)
    rest.<kind>             what stays float, in its own type; "half": float32 kept as float16; "step": float32
                            kept as int8, times one number a row that stands in rest.scale
    index         uint8     JSON, deflated (zlib): what all this is, in the same order

    index = {"layers": {name: {"window": ..., flags}}, "rest": [[name, shape, kind], ...], "about": ...}

A tensor a table would cost a hundred bytes of header each, which adds up to percents where layers are small. The
metadata hold `format` and `sha256`, which covers the format and every name, type, shape and byte. Rest tensors of one
axis, and such that float16 cannot hold, stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from binarize.errors import CheckError, SourceError, UsageError
from binarize.file_name import is_file
from binarize.packed.layers import PackedLayer
from binarize.packed.schema import check_index
from binarize.packed.tables import (
    KINDS,
    SCALE,
    Rest,
    Tables,
    layer_tables,
    narrow,
    rest_of,
    take_layer,
    take_rest,
)
from binarize.tensor_file import save_tensors

__all__ = ["FORMAT", "PackedModel", "read_file", "write_file"]

FORMAT = "binarize packed 1"
# No index of ours comes near, nor is any folded so often.
_LONGEST_INDEX, _FOLDED = 1 << 26, 256


@dataclass(frozen=True)
class PackedModel:
    """What a file holds. `rest` is in the model's own types; `about` are JSON values."""

    layers: Mapping[str, PackedLayer]
    rest: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)
    # Rest tensors that are never rounded.
    exact: frozenset[str] = frozenset()
    # As what the file keeps its rest.
    kept_as: Rest = "fp32"


def write_file(path: str | Path, model: PackedModel, rest: Rest = "fp32") -> None:
    """Write a packed model.

    Raises: UsageError, where `rest` is unknown or a tensor of a type that no file holds; OSError, where the disk
    refuses.
    """
    if rest not in get_args(Rest):
        raise UsageError(f"rest={rest!r}: expected one of {', '.join(get_args(Rest))}")
    tables: dict[str, list[Tensor]] = {"bits": [], "affine": [], "threshold": []}
    described: dict[str, Any] = {}
    for name, layer in model.layers.items():
        described[name], own = layer_tables(layer)
        for table, values in own.items():
            tables[table].append(values)
    kept: list[Any] = []
    for name, value in model.rest.items():
        kind, numbers, scale = narrow(name, value, "fp32" if name in model.exact else rest)
        kept.append([name, list(value.shape), kind])
        tables.setdefault(f"rest.{kind}", []).append(numbers)
        if scale is not None:
            tables.setdefault(SCALE, []).append(scale)
    tensors = {name: torch.cat([v.flatten() for v in values]) for name, values in tables.items() if values}
    index = {"layers": described, "rest": kept, "about": dict(model.about)}
    tensors["index"] = _deflated(index)
    texts = {"format": FORMAT, "sha256": _digest(FORMAT, tensors)}
    save_tensors(tensors, Path(path), texts)


def read_file(path: str | Path) -> PackedModel:
    """The packed model in a file, checked before anything is made of it.

    Raises: SourceError, where the file is none, is damaged, or its numbers do not fit together.
    """
    texts, tensors = _read(Path(path))
    found = texts.get("format", "")
    if found != FORMAT:
        what = f"its format is {found[:60]!r}" if found else "it has no format"
        raise SourceError(f"{path}: no packed model of this version: {what}, expected {FORMAT!r}")
    if texts.get("sha256") != _digest(found, tensors):
        raise SourceError(f"{path}: damaged: its sha256 is another\n  pack the model again")
    try:
        index = _inflated(tensors.pop("index", None))
        check_index(index)
        described, kept, about = (index[key] for key in ("layers", "rest", "about"))
        tables = Tables(tensors)
        layers = {name: take_layer(name, said, tables) for name, said in described.items()}
        rest = dict(take_rest(said, tables) for said in kept)
        tables.check_used_up()
    except (UsageError, CheckError) as error:
        raise SourceError(f"{path}: no packed model: {error}") from error
    return PackedModel(layers, rest, about, kept_as=rest_of(str(said[2]) for said in kept))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors) of a safetensors file."""
    if not is_file(path):
        raise SourceError(f"{path}: no such file; expected one that binarize pack wrote")
    try:
        with safe_open(path, framework="pt") as file:
            texts, names = file.metadata() or {}, set(file.keys())
            foreign = names - {"bits", "affine", "threshold", "index", SCALE} - {f"rest.{k}" for k in KINDS}
            if foreign and texts.get("format") == FORMAT:
                raise SourceError(f"{path}: no packed model: holds a table {min(foreign)[:40]!r}")
            tensors = {name: file.get_tensor(name) for name in names - foreign}
    except (OSError, SafetensorError, ValueError) as error:
        raise SourceError(f"{path}: damaged or no packed model: {error}") from error
    return texts, tensors


def _deflated(index: Mapping[str, Any]) -> Tensor:
    text = json.dumps(index, separators=(",", ":"), allow_nan=False)
    return torch.frombuffer(bytearray(zlib.compress(text.encode(), 9)), dtype=torch.uint8)


def _inflated(table: Tensor | None) -> dict[str, Any]:
    """The index. It may be small and stand for very much: what is longer than any of ours is not unfolded."""
    if table is None or table.dtype != torch.uint8 or table.dim() != 1:
        raise UsageError("it has no index")
    unfolding = zlib.decompressobj()
    most = min(_LONGEST_INDEX, (1 << 16) + _FOLDED * table.numel())
    try:
        text = unfolding.decompress(table.numpy().tobytes(), most)
        if not unfolding.eof or unfolding.unused_data:
            raise UsageError("its index is cut off, too long, or has something behind it")
        index = json.loads(text.decode())
    except (ValueError, zlib.error, RecursionError) as error:
        raise UsageError(f"its index is no JSON: {error}") from error
    if not isinstance(index, dict):
        raise UsageError(f"its index is {str(index)[:80]}")
    return index


def _digest(form: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the format, and over names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256(form.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        if value.numel():
            digest.update(cast(Any, value.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
