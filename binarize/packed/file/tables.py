"""The tables of a packed file: where a layer's numbers and a rest tensor's stand in them, and in what type."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels.bits import stream_bytes
from binarize.packed.frozen.form import Form
from binarize.packed.layers import PackedLayer
from binarize.packed.window import Window

__all__ = [
    "KINDS",
    "SCALE",
    "Rest",
    "Tables",
    "layer_tables",
    "narrow",
    "narrowed",
    "rest_bytes",
    "rest_of",
    "take_layer",
    "take_rest",
]

Rest = Literal["fp32", "fp16", "int8"]
_HALF, _STEP = "half", "step"
SCALE = "rest.scale"
# Kind of a rest tensor -> the type of its numbers in the file.
KINDS = {
    name: getattr(torch, name)
    for name in (
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
    )
} | {_HALF: torch.float16, _STEP: torch.int8}
# What the index may say of a layer beside its window, and what goes without saying.
_FLAGS: dict[str, Any] = {
    "planes": 1,
    "window_scale": False,
    # "", "one" number a plane, or one for "each" channel.
    "threshold": "",
    "outside": 0.0,
    "pad_value": 0.0,
    "zero_one": False,
    "float_input": False,
}
_LARGEST = float(torch.finfo(torch.float32).max)
# What a few bytes may ask for: a threshold that all channels share is repeated, a shape with a 0 takes no numbers.
# What layers may take in memory: of the bytes of the file's numbers, and beside that.
_TIMES, _BESIDE = 256, 1 << 28
_MOST_THRESHOLDS, _MOST_NUMBERS, _MOST_AXES = 1 << 26, 1 << 48, 16


class Tables:
    """The file's tensors, from which layers and rest tensors take what is theirs, one behind the other."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors, self.used = tensors, dict.fromkeys(tensors, 0)
        self.bytes = sum(table.nbytes for table in tensors.values())
        self.spent = self.highest = 0

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The next numbers of a table, in memory of their own."""
        table, start, count = self.tensors.get(name), self.used.get(name, 0), math.prod(shape)
        if table is None:
            table = torch.empty(0, dtype=dtype)
        if table.dtype != dtype or table.dim() != 1 or start + count > table.numel():
            raise UsageError(
                f"{name} is {table.dtype} {tuple(table.shape)}; expected {dtype} and {count} more"
            )
        if count:
            self.used[name] = start + count
        return table[start : start + count].view(tuple(shape)).clone()

    def spend(self, name: str, kept: int, passing: int) -> None:
        """Count what a layer takes in memory: for good, and while it is made.

        Raises: UsageError, where layers take more than `256 x file + 256 MiB` bytes.
        """
        self.spent, self.highest = self.spent + kept, max(self.highest, passing)
        most = _TIMES * self.bytes + _BESIDE
        if self.spent + self.highest > most:
            raise UsageError(
                f"{name}: it takes {kept + passing:,} bytes in memory; at most {most:,} are expected of layers in a "
                f"file with {self.bytes:,} bytes of numbers"
            )

    def check_used_up(self) -> None:
        """Raises: UsageError, where numbers are left that belong to nothing."""
        for name, table in self.tensors.items():
            if self.used[name] != table.numel():
                raise UsageError(
                    f"{name} has {table.numel()} numbers, of which {self.used[name]} belong to something"
                )


def layer_tables(layer: PackedLayer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(what the index says of a layer, its numbers)."""
    form = layer.form
    rows = [form.scale, form.shift[None]]
    values: dict[str, Any] = {flag: getattr(form, flag) for flag in _FLAGS}
    if form.window_scale is not None:
        rows.append(form.window_scale[None])
    values |= {"window_scale": form.window_scale is not None, "threshold": ""}
    tables = {"bits": layer.bits, "affine": torch.cat(rows)}
    if form.threshold is not None:
        uniform = bool((form.threshold == form.threshold[:, :1]).all())
        values["threshold"] = "one" if uniform else "each"
        tables["threshold"] = form.threshold[:, :1] if uniform else form.threshold
    said = {flag: type(default)(values[flag]) for flag, default in _FLAGS.items() if values[flag] != default}
    return {"window": form.window.to_json(), **said}, {name: t.detach().cpu() for name, t in tables.items()}


def take_layer(name: str, said: object, tables: Tables) -> PackedLayer:
    if not isinstance(said, dict) or not {"window"} <= said.keys() <= {"window", *_FLAGS}:
        raise UsageError(f"{name}: {str(said)[:80]} describes no layer")
    flags: dict[str, Any] = {flag: said.get(flag, default) for flag, default in _FLAGS.items()}
    for flag, default in _FLAGS.items():
        value = flags[flag]
        number = not isinstance(value, str)
        if type(value) is not type(default) or (number and not abs(value) <= _LARGEST):
            raise UsageError(f"{name}: {flag} is {str(value)[:40]}")
    window = Window.from_json(said["window"])
    planes, two_level, compared = (flags.pop(flag) for flag in ("planes", "window_scale", "threshold"))
    within = planes >= 1 and planes * window.in_channels <= _MOST_THRESHOLDS
    if not within or compared not in ("", "one", "each"):
        raise UsageError(f"{name}: {planes} planes compared with {compared[:40]!r}")
    tables.spend(f"layers.{name}", *_memory(window, planes if compared else 0))
    size = stream_bytes(window.weight_shape)
    bits = tables.take("bits", (window.out_channels, size // window.out_channels), torch.uint8)
    affine = tables.take("affine", (planes + 1 + two_level, window.out_channels), torch.float32)
    threshold = None
    if compared:
        # The stream that was there bounds the channels that one number is repeated for.
        columns = window.in_channels if compared == "each" else 1
        threshold = tables.take("threshold", (planes, columns), torch.float32)
        threshold = threshold.expand(planes, window.in_channels).contiguous()
    numbers = (affine[:planes].clone(), affine[planes].clone(), affine[-1].clone() if two_level else None)
    return PackedLayer.from_bits(Form(window, *numbers, threshold, **flags), bits)


def _memory(window: Window, rows: int) -> tuple[int, int]:
    """(bytes that a layer with so many rows of thresholds takes, bytes that pass while its weight is laid out)."""
    taps, inner = math.prod(window.kernel), window.weight_shape[1]
    filters, channels = (-(-n // 32) * 32 for n in (window.out_channels, inner))
    if not window.native:
        signs = window.out_channels * inner * taps
        return 4 * rows * window.in_channels, 16 * signs
    corners = math.prod(n + 1 for n in window.kernel)
    words = filters * (taps * channels // 32 + corners)
    return 4 * (words + rows * window.in_channels), 4 * filters * taps * channels


def narrowed(value: Tensor, rest: Rest) -> Tensor:
    """What becomes of a rest tensor in a file with this `rest`, in its own type."""
    return _widened(*narrow("it", value, rest)).view(value.shape)


def rest_of(kinds: Iterable[str]) -> Rest:
    """The `rest` that a file with these kinds of rest tensors was written with, or one with the same result."""
    found = set(kinds)
    return "int8" if _STEP in found else "fp16" if _HALF in found else "fp32"


def rest_bytes(value: Tensor, rest: Rest) -> int:
    """What the numbers of a rest tensor take in a file with this `rest`."""
    if rest == "fp32" or not _narrows(value):
        return value.numel() * value.element_size()
    return 2 * value.numel() if rest == "fp16" else value.numel() + 4 * value.shape[0]


def narrow(name: str, value: Tensor, rest: Rest) -> tuple[str, Tensor, Tensor | None]:
    """(kind of a rest tensor in the file, its numbers, one number a row that they are multiplied by)."""
    value, own = value.detach().cpu(), str(value.dtype).removeprefix("torch.")
    if own not in KINDS:
        raise UsageError(f"{name} is {value.dtype}, which no packed file holds")
    if rest == "fp32" or not _narrows(value):
        return own, value, None
    if rest == "fp16":
        half = value.half()
        return (_HALF, half, None) if bool(half.isfinite().all()) else (own, value, None)
    rows = value.flatten(1)
    largest = rows.abs().amax(1)
    if not bool(largest.isfinite().all()):
        return own, value, None
    scale = (largest / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return _STEP, (rows / scale[:, None]).round().to(torch.int8), scale


def _widened(kind: str, numbers: Tensor, scale: Tensor | None) -> Tensor:
    """A rest tensor in its own type, from what `_narrow` made of it."""
    if scale is not None:
        return numbers.flatten(1).float() * scale[:, None]
    return numbers.float() if kind == _HALF else numbers


def _narrows(value: Tensor) -> bool:
    return value.dtype == torch.float32 and value.dim() >= 2 and value.numel() > 0


def take_rest(said: object, tables: Tables) -> tuple[str, Tensor]:
    """(name, rest tensor)."""
    name, shape, kind = said if isinstance(said, list) and len(said) == 3 else (None, [], None)
    sizes = (
        isinstance(shape, list)
        and len(shape) <= _MOST_AXES
        and all(type(n) is int and 0 <= n < _MOST_NUMBERS for n in shape)
        and math.prod(n or 1 for n in shape) < _MOST_NUMBERS
    )
    if not isinstance(name, str) or not sizes or not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{str(said)[:80]} describes no tensor")
    if kind == _STEP and not shape:
        raise UsageError(f"{name}: a number alone has no rows")
    numbers = tables.take(f"rest.{kind}", shape, KINDS[kind])
    scale = tables.take(SCALE, shape[:1], torch.float32) if kind == _STEP else None
    return name, _widened(kind, numbers, scale).reshape(shape)
