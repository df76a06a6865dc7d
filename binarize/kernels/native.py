"""Calls of the native kernels: checked tensors in, addresses and sizes to C.

Type, shape, device and memory format of everything that is read by address are checked here. C gets with each address
the bytes that can be read from there, and compares them with all sizes once more. What does not change from call to
call is kept: the layout of a weight as long as the tensor of its bits lives unchanged, and the sizes of a geometry on
an image size.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels import variants
from binarize.kernels.bits import WORD
from binarize.kernels.buffers.arguments import (
    Given,
    check_parameters,
    check_residual,
    check_tensor,
    planes_of,
)
from binarize.kernels.buffers.kept import kept
from binarize.kernels.buffers.layout import KernelWeight, check_layout, make_layout
from binarize.kernels.buffers.memory import NOTHING, aligned, extent, keep_in_place, place
from binarize.kernels.buffers.readable import CPU, WORDS, in_one_piece, read_parameters, readable
from binarize.kernels.geometry import Geometry
from binarize.kernels.variants import Variant

__all__ = [
    "Call",
    "convolve",
    "image_size",
    "kernel_weight",
    "layout_of",
    "new_image",
    "new_words",
    "pack",
    "prepared",
    "refusals",
    "refused",
    "run",
]

# What a call fills, in the order of the kernels' arguments.
_RESULTS = ("dots", "result", "bits")


def kernel_weight(bits: Tensor, geometry: Geometry, variant: Variant) -> KernelWeight:
    """The layout of a canonical stream."""
    key = (variant.name, geometry.in_channels, geometry.kernel, geometry.groups)
    return kept(bits, key, lambda: make_layout(bits, geometry, variant))


def layout_of(weight: Tensor, threshold: Tensor | None, geometry: Geometry, variant: Variant) -> KernelWeight:
    """The layout of the signs of real-valued filters, -1 where a weight lies below its filter's threshold.

    Shapes: float32 (O, I, kh, kw), threshold (O,). There must be one group.
    """
    lanes, (kh, kw) = variant.lanes, geometry.kernel
    padded = -(-geometry.out_channels // lanes) * lanes
    span = -(-geometry.in_channels // WORD)
    words = geometry.taps * span
    check_layout(geometry, padded, span)
    check_tensor("weight", weight, geometry.weight_shape, torch.float32, CPU)
    weight = aligned(weight.contiguous())
    if threshold is not None:
        check_tensor("threshold", threshold, (geometry.out_channels,), torch.float32, CPU)
        threshold = aligned(threshold.contiguous())
    data = torch.zeros(padded * words, dtype=torch.int32)
    corner_sums = torch.zeros((kh + 1, kw + 1, padded), dtype=torch.int32)
    module = variants.native()
    assert module is not None and geometry.groups == 1
    numbers = (
        variant.index, geometry.out_channels, geometry.in_channels, kh, kw, lanes, padded, torch.get_num_threads(),
        *extent(weight), *(NOTHING if threshold is None else extent(threshold)), *extent(data), *extent(corner_sums),
    )  # fmt: skip
    with refusals():
        module.filters(*numbers)
    return KernelWeight(data, False, torch.zeros(padded // lanes, dtype=torch.int32), span, corner_sums)


def new_image(x: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """An unwritten result (N, O, H', W') with channels last in memory."""
    n, height, width = image_size(x)
    channels, (height, width) = geometry.out_channels, _output_size(geometry, height, width)
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((n, channels, height, width), strides, dtype=dtype)


def new_words(x: Tensor, geometry: Geometry) -> Tensor:
    """An unwritten packed result (N, H', W', ceil(O / 32))."""
    n, height, width = image_size(x)
    words = -(-geometry.out_channels // WORD)
    return torch.empty((n, *_output_size(geometry, height, width), words), dtype=torch.int32)


def image_size(x: Tensor) -> tuple[int, int, int]:
    """(N, H, W) of a float image (N, C, H, W) or a packed one (N, H, W, words)."""
    shape = x.shape
    return (shape[0], shape[1], shape[2]) if x.dtype == torch.int32 else (shape[0], shape[2], shape[3])


def convolve(
    variant: Variant, given: Given, weight: KernelWeight, geometry: Geometry, results: Mapping[str, Tensor]
) -> None:
    """Fills `results`, named as the fields of a call: `dots`, `result` or `bits`.

    Raises: UsageError if a tensor has another type, shape or device than the geometry needs.
    """
    x, kind, threshold = readable(given.x, geometry, given.threshold)
    parameters = given.parameters
    parameters["thresholds"] = threshold
    read = read_parameters(parameters, geometry, planes_of(threshold))
    sizes, options = image_size(x), (int(given.zero_one), int(given.activation_first))
    # The tensors themselves are kept with what was made of them: no other can come to have the same number.
    key = geometry, sizes, kind, options, *((name, id(one), place(one)) for name, one in read.items())
    call = kept(weight.data, key, lambda: prepared(weight, geometry, sizes, kind, options, read), ours=True)
    residual = given.residual
    if residual is not None:
        check_residual(residual, x, geometry)
        residual = aligned(residual.contiguous(memory_format=torch.channels_last))
    if sizes[0]:
        run("conv", variant, call.fields, x, residual, results)


@dataclass(frozen=True)
class Call:
    """What does not change from call to call, and the tensors whose addresses are in it."""

    fields: bytes
    given: dict[str, Tensor]
    # The same memory under names that nobody else has: `tensor.data = ...` would free it.
    memory: list[Tensor]


def prepared(
    weight: KernelWeight,
    geometry: Geometry,
    sizes: tuple[int, int, int],
    kind: int,
    options: tuple[int, int],
    given: dict[str, Tensor],
) -> Call:
    """A call of a layer on images of one size and kind; `given` are its parameters by field, each `in_one_piece`.

    Raises: UsageError, where a parameter has another type or shape than the geometry needs.
    """
    planes = planes_of(given.get("thresholds"))
    # The thresholds were checked with the input.
    parameters = {name: tensor for name, tensor in given.items() if name != "thresholds"}
    check_parameters(parameters, geometry, planes, CPU)
    fields = _sizes(geometry, *sizes).copy()
    fields["planes"], (fields["zero_one"], fields["activation_first"]) = planes, options
    fields["input_kind"], fields["masked"], fields["span"] = kind, int(weight.masked), weight.span
    parts = {"weight": weight.data, "starts": weight.starts, "corner_sums": weight.corner_sums, **given}
    memory = {name: keep_in_place(tensor) for name, tensor in parts.items()}
    for name, tensor in memory.items():
        fields[name], fields[f"{name}_bytes"] = extent(tensor)
    return Call(_as_bytes(fields), given, list(memory.values()))


def pack(variant: Variant, x: Tensor, threshold: Tensor | None) -> Tensor:
    """Words of a float image: `x < threshold` per channel.

    Shapes: float (N, C, H, W), threshold (C,) -> int32 (N, H, W, ceil(C / 32)).
    """
    geometry = Geometry(x.shape[1], 1)
    x, kind, threshold = readable(x, geometry, threshold)
    if kind == WORDS:
        return x
    n, height, width = image_size(x)
    out = torch.empty((n, height, width, -(-x.shape[1] // WORD)), dtype=torch.int32)
    fields = _sizes(geometry, n, height, width).copy()
    fields["input_kind"], fields["planes"] = kind, 1
    if threshold is not None:
        threshold = in_one_piece("threshold", threshold)
        fields["thresholds"], fields["thresholds_bytes"] = extent(threshold)
    if n:
        run("pack", variant, _as_bytes(fields), x, None, {"bits": out})
    return out


def run(
    function: str,
    variant: Variant,
    call: bytes,
    x: Tensor,
    residual: Tensor | None,
    results: Mapping[str, Tensor],
) -> None:
    """Calls `conv` or `pack` with the fields of a prepared call, and what is another in each; fills `results`.

    Raises: UsageError, where the kernels refuse it.
    """
    passed: list[int] = []
    for tensor in (x, residual, *map(results.get, _RESULTS)):
        passed += NOTHING if tensor is None else extent(tensor)
    with refusals():
        getattr(variants.native(), function)(variant.index, call, torch.get_num_threads(), *passed)


@contextmanager
def refusals() -> Iterator[None]:
    """Makes what the kernels say of a call a UsageError."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise refused(error) from error


def refused(error: Exception) -> UsageError:
    """What the kernels say of a call, as an error of ours."""
    return UsageError(f"the kernels refuse this call: {error}")


def _as_bytes(fields: dict[str, int]) -> bytes:
    # A misspelt field makes the dict longer, and the bytes, whose length the kernels look at.
    return struct.pack(f"{len(fields)}q", *fields.values())


@functools.lru_cache(maxsize=4096)
def _output_size(geometry: Geometry, height: int, width: int) -> tuple[int, int]:
    return geometry.output_size(height, width)


@functools.lru_cache(maxsize=4096)
def _sizes(geometry: Geometry, batch: int, height: int, width: int) -> dict[str, int]:
    """All fields of a call in their order, the sizes filled in and the rest 0."""
    module = variants.native()
    assert module is not None
    out_height, out_width = _output_size(geometry, height, width)
    top, bottom, left, right = geometry.padding
    sizes = {
        "batch": batch, "channels": geometry.in_channels, "height": height, "width": width,
        "out_channels": geometry.out_channels, "out_height": out_height, "out_width": out_width,
        "kernel_height": geometry.kernel[0], "kernel_width": geometry.kernel[1],
        "stride_height": geometry.stride[0], "stride_width": geometry.stride[1],
        "pad_top": top, "pad_bottom": bottom, "pad_left": left, "pad_right": right,
        "dilation_height": geometry.dilation[0], "dilation_width": geometry.dilation[1],
        "groups": geometry.groups, "pad_value": geometry.pad_value,
    }  # fmt: skip
    return {**dict.fromkeys(module.FIELDS, 0), **sizes}
