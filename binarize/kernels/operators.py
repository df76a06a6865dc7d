"""Torch operators over the kernels: visible to torch.export and torch.compile.

    binarize::pack           image -> words
    binarize::conv_dot       image -> int32 dot products
    binarize::conv           image -> float32: affine, residual, activation
    binarize::conv_bits      image -> words: integer thresholds of the next layer's signs
    binarize::conv_and_bits  image -> float32 as `conv`, and the words of `result < next_threshold`
    binarize::conv_and_bits_ the same, the float32 written over the residual

An image is float (N, C, H, W) in any memory format, or packed words int32 (N, H, W, ceil(C / 32)). Weights are the
canonical stream (`pack.pack_bits`), so that an exported program does not depend on the processor. `sizes` are the
13 integers of `sizes_of`. Results have channels last in memory. The meaning of every argument is in `reference`.
On a CPU the native kernels run, elsewhere and without them the reference, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from binarize.kernels import native, reference, variants
from binarize.kernels.bits import WORD, pack_words
from binarize.kernels.buffers.arguments import (
    check_image,
    check_packable,
    check_residual,
    check_spread,
    check_tensor,
    checked,
)
from binarize.kernels.geometry import Geometry, geometry_of

__all__ = ["geometry_of", "linear", "sizes_of"]

INPUT = "Tensor? threshold=None, bool zero_one=False"
EPILOGUE = (
    "Tensor? window_scale=None, Tensor? border=None, Tensor? residual=None, Tensor? activation=None, "
    "bool activation_first=False"
)


def sizes_of(geometry: Geometry) -> list[int]:
    """The operators' argument `sizes`: in_channels, kernel, stride, padding, dilation, groups, pad_value."""
    g = geometry
    return [g.in_channels, *g.kernel, *g.stride, *g.padding, *g.dilation, g.groups, g.pad_value]


def linear(x: Tensor, bits: Tensor, scale: Tensor, shift: Tensor, **options: Any) -> Tensor:
    """A linear layer as `binarize::conv` of pixels; `options` are that operator's.

    Shapes: x (..., C) -> float32 (..., O).
    """
    pixels = x.reshape(-1, x.shape[-1], 1, 1)
    sizes = sizes_of(Geometry(x.shape[-1], bits.shape[0]))
    y: Tensor = torch.ops.binarize.conv(pixels, bits, sizes, scale, shift, **options)
    return y.reshape(*x.shape[:-1], bits.shape[0])


# On a CPU


def _pack_cpu(x: Tensor, threshold: Tensor | None = None) -> Tensor:
    variant = variants.active()
    if variant is None:
        return _pack_reference(x, threshold)
    check_packable(x, threshold)
    return native.pack(variant, x, threshold)


def _conv_dot_cpu(
    x: Tensor, bits: Tensor, sizes: Sequence[int], *, threshold: Tensor | None = None, zero_one: bool = False
) -> Tensor:
    variant, geometry = variants.active(), geometry_of(bits, sizes)
    if variant is None:
        return _conv_dot_reference(x, bits, sizes, threshold=threshold, zero_one=zero_one)
    check_image(x, geometry, threshold)
    out = native.new_image(x, geometry, torch.int32)
    weight = native.kernel_weight(bits, geometry, variant)
    native.convolve(variant, x, weight, geometry, threshold, zero_one, {"dots": out})
    return out


def _conv_cpu(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    scale: Tensor,
    shift: Tensor,
    *,
    threshold: Tensor | None = None,
    zero_one: bool = False,
    **options: Any,
) -> Tensor:
    variant, geometry = variants.active(), geometry_of(bits, sizes)
    if variant is None:
        options |= {"threshold": threshold, "zero_one": zero_one}
        return _conv_reference(x, bits, sizes, scale, shift, **options)
    check_image(x, geometry, threshold)
    out = native.new_image(x, geometry, torch.float32)
    weight = native.kernel_weight(bits, geometry, variant)
    native.convolve(
        variant,
        x,
        weight,
        geometry,
        threshold,
        zero_one,
        {"result": out},
        scale=scale,
        shift=shift,
        **options,
    )
    return out


def _conv_bits_cpu(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    limit: Tensor,
    flip: Tensor,
    *,
    threshold: Tensor | None = None,
    zero_one: bool = False,
) -> Tensor:
    variant, geometry = variants.active(), geometry_of(bits, sizes)
    if variant is None:
        return _conv_bits_reference(x, bits, sizes, limit, flip, threshold=threshold, zero_one=zero_one)
    check_image(x, geometry, threshold)
    flip = _without_filling(flip, geometry.out_channels)
    out = native.new_words(x, geometry)
    weight = native.kernel_weight(bits, geometry, variant)
    native.convolve(variant, x, weight, geometry, threshold, zero_one, {"bits": out}, limit=limit, flip=flip)
    return out


def _without_filling(flip: Tensor, channels: int) -> Tensor:
    """Which channels to invert, none of them behind the last: filling bits of words are 0."""
    check_tensor("flip", flip, (-(-channels // WORD),), torch.int32, torch.device("cpu"))
    spare = channels % WORD
    if not spare or not int(flip[-1]) >> spare:
        return flip
    flip = flip.clone()
    flip[-1] &= (1 << spare) - 1
    return flip


def _conv_and_bits_cpu(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    scale: Tensor,
    shift: Tensor,
    next_threshold: Tensor,
    *,
    threshold: Tensor | None = None,
    zero_one: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    variant, geometry = variants.active(), geometry_of(bits, sizes)
    if variant is None:
        options |= {"threshold": threshold, "zero_one": zero_one}
        return _conv_and_bits_reference(x, bits, sizes, scale, shift, next_threshold, **options)
    check_image(x, geometry, threshold)
    results = {"result": native.new_image(x, geometry, torch.float32), "bits": native.new_words(x, geometry)}
    options |= {"scale": scale, "shift": shift, "next_threshold": next_threshold}
    weight = native.kernel_weight(bits, geometry, variant)
    native.convolve(variant, x, weight, geometry, threshold, zero_one, results, **options)
    return results["result"], results["bits"]


def _conv_and_bits_over_cpu(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    scale: Tensor,
    shift: Tensor,
    next_threshold: Tensor,
    residual: Tensor,
    *,
    threshold: Tensor | None = None,
    zero_one: bool = False,
    **options: Any,
) -> Tensor:
    variant, geometry = variants.active(), geometry_of(bits, sizes)
    options |= {"scale": scale, "shift": shift, "next_threshold": next_threshold, "residual": residual}
    if variant is None or not residual.is_contiguous(memory_format=torch.channels_last):
        options |= {"threshold": threshold, "zero_one": zero_one}
        return _conv_and_bits_over_reference(x, bits, sizes, **options)
    check_image(x, geometry, threshold)
    check_residual(residual, x, geometry)
    # An image is packed before any of its results is written, so that x may be the residual, but no part of it.
    if x.untyped_storage().data_ptr() == residual.untyped_storage().data_ptr() and x is not residual:
        x = x.clone()
    results = {"result": residual, "bits": native.new_words(x, geometry)}
    weight = native.kernel_weight(bits, geometry, variant)
    native.convolve(variant, x, weight, geometry, threshold, zero_one, results, **options)
    return results["bits"]


# Elsewhere, and without the extension


# The operators' positional arguments.
_IMAGE = ("x", "bits", "sizes")
_AFFINE = (*_IMAGE, "scale", "shift", "next_threshold", "residual")
_LIMITS = (*_IMAGE, "limit", "flip")
_PACK = ("x", "threshold")


def _channels_last(y: Tensor) -> Tensor:
    return y.contiguous(memory_format=torch.channels_last)


@checked(_PACK)
def _pack_reference(x: Tensor, threshold: Tensor | None = None) -> Tensor:
    (mask,) = reference.input_masks(x, Geometry(x.shape[1], 1), threshold)
    return pack_words(mask.permute(0, 2, 3, 1))


@checked(_IMAGE)
def _conv_dot_reference(
    x: Tensor, bits: Tensor, sizes: Sequence[int], *, threshold: Tensor | None = None, zero_one: bool = False
) -> Tensor:
    geometry = geometry_of(bits, sizes)
    (mask,) = reference.input_masks(x, geometry, threshold)
    return _channels_last(reference.dot(mask, bits, geometry, zero_one))


@checked(_AFFINE)
def _conv_reference(
    x: Tensor, bits: Tensor, sizes: Sequence[int], scale: Tensor, shift: Tensor, **options: Any
) -> Tensor:
    y = reference.conv_affine(x, bits, geometry_of(bits, sizes), scale, shift, **options)
    return _channels_last(y)


@checked(_LIMITS)
def _conv_bits_reference(
    x: Tensor, bits: Tensor, sizes: Sequence[int], limit: Tensor, flip: Tensor, **options: Any
) -> Tensor:
    return reference.below(_conv_dot_reference(x, bits, sizes, **options), limit, flip)


@checked(_AFFINE)
def _conv_and_bits_reference(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    scale: Tensor,
    shift: Tensor,
    next_threshold: Tensor,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    y = _conv_reference(x, bits, sizes, scale, shift, **options)
    return y, reference.below(y, next_threshold)


@checked(_AFFINE)
def _conv_and_bits_over_reference(
    x: Tensor,
    bits: Tensor,
    sizes: Sequence[int],
    scale: Tensor,
    shift: Tensor,
    next_threshold: Tensor,
    residual: Tensor,
    **options: Any,
) -> Tensor:
    check_spread(residual)
    y = _conv_reference(x, bits, sizes, scale, shift, residual=residual, **options)
    residual.copy_(y)
    return reference.below(y, next_threshold)


# Shapes alone; sizes may be symbols


@checked(_PACK)
def _pack_shape(x: Tensor, threshold: Tensor | None = None) -> Tensor:
    n, channels, height, width = x.shape
    return x.new_empty((n, height, width, -(-channels // WORD)), dtype=torch.int32)


def _image_shape(dtype: torch.dtype, names: Sequence[str] = _AFFINE) -> Callable[..., Tensor]:
    @checked(names)
    def shape(x: Tensor, bits: Tensor, sizes: Sequence[int], *rest: Any, **options: Any) -> Tensor:
        n, height, width = native.image_size(x)
        size = (n, bits.shape[0], *geometry_of(bits, sizes).output_size(height, width))
        return torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)

    return shape


def _words_shape(names: Sequence[str]) -> Callable[..., Tensor]:
    return checked(names)(_shape_of_words)


def _shape_of_words(x: Tensor, bits: Tensor, sizes: Sequence[int], *rest: Any, **options: Any) -> Tensor:
    n, height, width = native.image_size(x)
    size = geometry_of(bits, sizes).output_size(height, width)
    return x.new_empty((n, *size, -(-bits.shape[0] // WORD)), dtype=torch.int32)


def _both_shapes(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
    return _image_shape(torch.float32)(*arguments, **options), _shape_of_words(*arguments, **options)


_LAYER = "Tensor x, Tensor bits, int[] sizes"
# schema: implementation on a CPU, elsewhere, and for shapes alone
_OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "pack(Tensor x, Tensor? threshold=None) -> Tensor": (_pack_cpu, _pack_reference, _pack_shape),
    f"conv_dot({_LAYER}, *, {INPUT}) -> Tensor": (
        _conv_dot_cpu, _conv_dot_reference, _image_shape(torch.int32),
    ),
    f"conv({_LAYER}, Tensor scale, Tensor shift, *, {INPUT}, {EPILOGUE}) -> Tensor": (
        _conv_cpu, _conv_reference, _image_shape(torch.float32),
    ),
    f"conv_bits({_LAYER}, Tensor limit, Tensor flip, *, {INPUT}) -> Tensor": (
        _conv_bits_cpu, _conv_bits_reference, _words_shape(_LIMITS),
    ),
    f"conv_and_bits({_LAYER}, Tensor scale, Tensor shift, Tensor next_threshold, *, {INPUT}, {EPILOGUE}) "
    "-> (Tensor, Tensor)": (_conv_and_bits_cpu, _conv_and_bits_reference, _both_shapes),
    f"conv_and_bits_({_LAYER}, Tensor scale, Tensor shift, Tensor next_threshold, Tensor(a!) residual, *, {INPUT}, "
    f"{EPILOGUE.replace('Tensor? residual=None, ', '')}) -> Tensor": (
        _conv_and_bits_over_cpu, _conv_and_bits_over_reference, _words_shape(_AFFINE),
    ),
}  # fmt: skip

_library = torch.library.Library("binarize", "DEF")
for _schema, (_cpu, _elsewhere, _shape) in _OPERATORS.items():
    _name = _schema.partition("(")[0]
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(_name, _cpu, "CPU")
    _library.impl(_name, _elsewhere, "CompositeExplicitAutograd")
    torch.library.register_fake(f"binarize::{_name}", _shape, lib=_library)
