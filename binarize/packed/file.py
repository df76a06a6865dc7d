"""packed.safetensors: a packed model's numbers, one bit a sign. Safetensors alone: reading it runs nothing.

    <layer>.bits        uint8 (out, bytes of a filter)    the canonical stream, see packed/pack.py
    <layer>.affine      float32 (planes + 1 or 2, out)    A of each plane, B, and C where there is one
    <layer>.threshold   float32 (planes, in or 1)         missing where the input is compared with 0
    <any other name>    what stays float, in its own type, as float16, or as int8 beside <name>/scale

The metadata are texts: `format`, `layers` (JSON: window and flags of each packed layer), `rest` (JSON: how what
stays float is kept), `about` (JSON: what the caller wants kept) and `sha256`, which covers the metadata and every
name, type, shape and byte. Rest tensors of one axis, and such that float16 cannot hold, stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from binarize.errors import CheckError, SourceError, UsageError
from binarize.packed.layers import Form, PackedLayer, check_stream
from binarize.packed.window import Window

__all__ = ["FORMAT", "PackedModel", "Rest", "narrowed", "read_file", "rest_bytes", "write_file"]

FORMAT = "binarize packed 1"
Rest = Literal["fp32", "fp16", "int8"]
_SCALE = "/scale"
_TABLES = ("bits", "affine", "threshold")
# Of these the header may speak; torch reads them all.
_TYPES = frozenset(["U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64", "BOOL"])


@dataclass(frozen=True)
class PackedModel:
    """What a file holds. `rest` is in the model's own types; `about` are JSON values."""

    layers: Mapping[str, PackedLayer]
    rest: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)


def write_file(path: str | Path, model: PackedModel, rest: Rest = "fp32") -> None:
    """Write a packed model.

    Raises: UsageError, where `rest` is unknown; OSError, where the disk refuses.
    """
    if rest not in get_args(Rest):
        raise UsageError(f"rest={rest!r}: expected one of {', '.join(get_args(Rest))}")
    tensors: dict[str, Tensor] = {}
    layers: dict[str, dict[str, Any]] = {}
    for name, layer in model.layers.items():
        layers[name], tables = _layer_tables(layer)
        tensors |= {f"{name}.{table}": value for table, value in tables.items()}
    for name, value in model.rest.items():
        tensors |= _narrow(name, value, rest)
    half = [name for name, value in model.rest.items() if value.dtype == torch.float16]
    texts = {"format": FORMAT, "layers": _json(layers), "about": _json(model.about)}
    texts["rest"] = _json({"kept": rest, "float16": half})
    texts["sha256"] = _digest(texts, tensors)
    try:
        save_file(tensors, path, metadata=texts)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(f"{path}: {error}") from error


def read_file(path: str | Path) -> PackedModel:
    """The packed model in a file, checked before anything is made of it.

    Raises: SourceError, where the file is none, is damaged, or its numbers do not fit together.
    """
    texts, tensors = _read(Path(path))
    found = texts.get("format", "")
    if found != FORMAT:
        what = f"its format is {found[:60]!r}" if found else "it has no format"
        raise SourceError(f"{path}: no packed model of this version: {what}, expected {FORMAT!r}")
    if texts.get("sha256") != _digest(texts, tensors):
        raise SourceError(f"{path}: damaged: its sha256 is another\n  pack the model again")
    try:
        described, kept, about = (_parsed(texts, key) for key in ("layers", "rest", "about"))
        layers = {name: _layer(name, said, tensors) for name, said in described.items()}
        rest = _widened(tensors, kept.get("kept") == "fp16", kept.get("float16", []))
    except (UsageError, CheckError) as error:
        raise SourceError(f"{path}: no packed model: {error}") from error
    return PackedModel(layers, rest, about)


def narrowed(value: Tensor, rest: Rest) -> Tensor:
    """What becomes of a rest tensor in a file with this `rest`, in its own type."""
    return _widened(_narrow("x", value, rest), value.dtype == torch.float32, [])["x"]


def rest_bytes(value: Tensor, rest: Rest) -> int:
    """What the numbers of a rest tensor take in a file with this `rest`."""
    if rest == "fp32" or not _narrows(value):
        return value.numel() * value.element_size()
    return 2 * value.numel() if rest == "fp16" else value.numel() + 4 * value.shape[0]


# --- layers


def _layer_tables(layer: PackedLayer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what the metadata say of a layer, its tensors)."""
    form = layer.form
    said: dict[str, Any] = {"window": form.window.to_json()}
    for flag, default in _FLAGS.items():
        value = type(default)(
            getattr(form, flag) is not None if flag == "window_scale" else getattr(form, flag)
        )
        if value != default:
            said[flag] = value
    rows = [form.scale, form.shift[None]]
    if form.window_scale is not None:
        rows.append(form.window_scale[None])
    tables = {"bits": layer.bits, "affine": torch.cat(rows)}
    if form.threshold is not None:
        uniform = bool((form.threshold == form.threshold[:, :1]).all())
        tables["threshold"] = form.threshold[:, :1] if uniform else form.threshold
    return said, {name: table.detach().cpu().contiguous() for name, table in tables.items()}


def _layer(name: str, said: Any, tensors: dict[str, Tensor]) -> PackedLayer:
    """The layer of that name; its tensors are taken out of `tensors`."""
    if not isinstance(said, dict) or not {"window"} <= said.keys() <= {"window", *_FLAGS}:
        raise UsageError(f"{name}: {str(said)[:80]} describes no layer")
    flags: dict[str, Any] = {}
    for flag, default in _FLAGS.items():
        flags[flag] = said.get(flag, default)
        if type(flags[flag]) is not type(default) or not abs(flags[flag]) <= _LARGEST:
            raise UsageError(f"{name}: {flag} is {str(flags[flag])[:40]}")
    window = Window.from_json(said["window"])
    bits, affine, threshold = (tensors.pop(f"{name}.{table}", None) for table in _TABLES)
    two_level = flags.pop("window_scale")
    planes = -1 if affine is None or affine.dim() != 2 else affine.shape[0] - 1 - two_level
    if bits is None or affine is None or planes < 1:
        raise UsageError(f"{name}: its bits or the numbers behind them are missing")
    if threshold is not None and tuple(threshold.shape) == (planes, 1):
        check_stream(bits, window)  # bounds the number of channels
        threshold = threshold.expand(planes, window.in_channels).contiguous()
    tables = (affine[:planes].clone(), affine[planes].clone(), affine[-1].clone() if two_level else None)
    return PackedLayer.from_bits(Form(window, *tables, threshold, **flags), bits)


# What the metadata may say of a layer beside its window, and what goes without saying.
_FLAGS: dict[str, Any] = {
    "outside": 0.0,
    "pad_value": 0.0,
    "zero_one": False,
    "float_input": False,
    "window_scale": False,
}
_LARGEST = float(torch.finfo(torch.float32).max)


# --- the float rest


def _narrow(name: str, value: Tensor, rest: Rest) -> dict[str, Tensor]:
    """A rest tensor as the file holds it."""
    value = value.detach().cpu()
    if rest == "fp32" or not _narrows(value):
        return {name: value.contiguous()}
    if rest == "fp16":
        half = value.half()
        return {name: (half if bool(half.isfinite().all()) else value).contiguous()}
    largest = value.abs().amax(tuple(range(1, value.dim())), keepdim=True)
    if not bool(largest.isfinite().all()):
        return {name: value.contiguous()}
    scale = (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return {name: (value / scale).round().to(torch.int8).contiguous(), name + _SCALE: scale.flatten()}


def _narrows(value: Tensor) -> bool:
    return value.dtype == torch.float32 and value.dim() >= 2 and value.numel() > 0


def _widened(tensors: Mapping[str, Tensor], halves: bool, float16: Any) -> dict[str, Tensor]:
    """Rest tensors in their own types; with `halves`, float16 means float32 for all but those that are named."""
    if not isinstance(float16, list):
        raise UsageError(f"the names of float16 tensors are {str(float16)[:80]}")
    scales = {name.removesuffix(_SCALE): value for name, value in tensors.items() if name.endswith(_SCALE)}
    for name, scale in scales.items():
        of = tensors.get(name)
        if of is None or of.dtype != torch.int8 or of.dim() < 2 or scale.shape != of.shape[:1]:
            raise UsageError(f"{name + _SCALE}: is the scale of nothing")
    found = {}
    for name, value in tensors.items():
        if name in scales:
            value = value.float() * scales[name].float().view(-1, *[1] * (value.dim() - 1))
        elif halves and value.dtype == torch.float16 and name not in float16:
            value = value.float()
        if not name.endswith(_SCALE):
            found[name] = value
    return found


# --- reading


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors) of a safetensors file."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected one that binarize pack wrote")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            names = list(file.keys())
            types = {file.get_slice(name).get_dtype() for name in names}
            if types - _TYPES:
                raise SourceError(f"{path}: no packed model: holds numbers of type {min(types - _TYPES)}")
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise SourceError(f"{path}: damaged or no packed model: {error}") from error
    return texts, tensors


def _parsed(texts: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(texts.get(key, ""))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"its {key} are no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"its {key} are {str(value)[:80]}")
    return value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _digest(texts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the metadata but itself, and over names, types, shapes and bytes of the tensors."""
    said = {key: text for key, text in texts.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        if value.numel():
            digest.update(cast(Any, value.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
