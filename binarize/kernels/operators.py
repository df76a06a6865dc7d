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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels import native, reference, variants
from binarize.kernels.bits import WORD, pack_words
from binarize.kernels.buffers.arguments import (
    Given,
    check_call,
    check_image,
    check_packable,
    check_residual,
    check_spread,
    check_tensor,
)
from binarize.kernels.geometry import Geometry, geometry_of
from binarize.kernels.variants import Variant

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


def linear(x: Tensor, bits: Tensor, scale: Tensor, shift: Tensor, **options: object) -> Tensor:
    """A linear layer as `binarize::conv` of pixels; `options` are that operator's.

    Shapes: x (..., C) -> float32 (..., O).
    """
    pixels = x.reshape(-1, x.shape[-1], 1, 1)
    sizes = sizes_of(Geometry(x.shape[-1], bits.shape[0]))
    y: Tensor = torch.ops.binarize.conv(pixels, bits, sizes, scale, shift, **options)
    return y.reshape(*x.shape[:-1], bits.shape[0])


# On a CPU


def _packed(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    return native.pack(variant, given.x, given.threshold)


def _dots(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    dots = native.new_image(given.x, geometry, torch.int32)
    return _filled(given, geometry, variant, {"dots": dots})["dots"]


def _image(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    image = native.new_image(given.x, geometry, torch.float32)
    return _filled(given, geometry, variant, {"result": image})["result"]


def _words(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    assert given.flip is not None
    given = given._replace(flip=_without_filling(given.flip, geometry.out_channels))
    return _filled(given, geometry, variant, {"bits": native.new_words(given.x, geometry)})["bits"]


def _image_and_words(given: Given, geometry: Geometry, variant: Variant) -> tuple[Tensor, Tensor]:
    image, words = native.new_image(given.x, geometry, torch.float32), native.new_words(given.x, geometry)
    _filled(given, geometry, variant, {"result": image, "bits": words})
    return image, words


def _words_over(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    x, residual = given.x, given.residual
    assert residual is not None
    if not residual.is_contiguous(memory_format=torch.channels_last):
        check_call(given)
        return _words_over_reference(given)
    check_residual(residual, x, geometry)
    # An image is packed before any of its results is written, so that x may be the residual, but no part of it.
    if x.untyped_storage().data_ptr() == residual.untyped_storage().data_ptr() and x is not residual:
        given = given._replace(x=x.clone())
    return _filled(given, geometry, variant, {"result": residual, "bits": native.new_words(x, geometry)})[
        "bits"
    ]


def _filled(
    given: Given, geometry: Geometry, variant: Variant, results: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The results, as the kernels fill them."""
    weight = native.kernel_weight(given.bits, geometry, variant)
    native.convolve(variant, given, weight, geometry, results)
    return results


def _without_filling(flip: Tensor, channels: int) -> Tensor:
    """Which channels to invert, none of them behind the last: filling bits of words are 0."""
    check_tensor("flip", flip, (-(-channels // WORD),), torch.int32, torch.device("cpu"))
    spare = channels % WORD
    if not spare or not int(flip[-1]) >> spare:
        return flip
    flip = flip.clone()
    flip[-1] &= (1 << spare) - 1
    return flip


# Elsewhere, and without the extension


def _packed_reference(given: Given) -> Tensor:
    (mask,) = reference.input_masks(given.x, Geometry(given.x.shape[1], 1), given.threshold)
    return pack_words(mask.permute(0, 2, 3, 1))


def _dots_reference(given: Given) -> Tensor:
    (mask,) = reference.input_masks(given.x, _geometry(given), given.threshold)
    return _channels_last(reference.dot(mask, given.bits, _geometry(given), given.zero_one))


def _image_reference(given: Given) -> Tensor:
    assert given.scale is not None and given.shift is not None
    y = reference.conv_affine(
        given.x, given.bits, _geometry(given), given.scale, given.shift, threshold=given.threshold,
        zero_one=given.zero_one, window_scale=given.window_scale, border=given.border, residual=given.residual,
        activation=given.activation, activation_first=given.activation_first,
    )  # fmt: skip
    return _channels_last(y)


def _words_reference(given: Given) -> Tensor:
    assert given.limit is not None
    return reference.below(_dots_reference(given), given.limit, given.flip)


def _image_and_words_reference(given: Given) -> tuple[Tensor, Tensor]:
    assert given.next_threshold is not None
    y = _image_reference(given)
    return y, reference.below(y, given.next_threshold)


def _words_over_reference(given: Given) -> Tensor:
    assert given.residual is not None
    check_spread(given.residual)
    y, words = _image_and_words_reference(given)
    given.residual.copy_(y)
    return words


def _geometry(given: Given) -> Geometry:
    return geometry_of(given.bits, given.sizes)


def _channels_last(y: Tensor) -> Tensor:
    return y.contiguous(memory_format=torch.channels_last)


# Shapes alone; sizes may be symbols


def _shape_of_packed(given: Given) -> Tensor:
    n, channels, height, width = given.x.shape
    return given.x.new_empty((n, height, width, -(-channels // WORD)), dtype=torch.int32)


def _shape_of_dots(given: Given) -> Tensor:
    return _image_like(given, torch.int32)


def _shape_of_image(given: Given) -> Tensor:
    return _image_like(given, torch.float32)


def _image_like(given: Given, dtype: torch.dtype) -> Tensor:
    n, height, width = native.image_size(given.x)
    size = (n, given.bits.shape[0], *_geometry(given).output_size(height, width))
    return torch.empty(size, dtype=dtype, device=given.x.device, memory_format=torch.channels_last)


def _shape_of_words(given: Given) -> Tensor:
    n, height, width = native.image_size(given.x)
    size = _geometry(given).output_size(height, width)
    return given.x.new_empty((n, *size, -(-given.bits.shape[0] // WORD)), dtype=torch.int32)


def _shapes_of_both(given: Given) -> tuple[Tensor, Tensor]:
    return _shape_of_image(given), _shape_of_words(given)


@dataclass(frozen=True)
class _Operator:
    """What an operator computes on a CPU, elsewhere, and of shapes alone."""

    native: Callable[[Given, Geometry, Variant], Any]
    reference: Callable[[Given], Any]
    shape: Callable[[Given], Any]


_LAYER = "Tensor x, Tensor bits, int[] sizes"
_AFFINE = f"{_LAYER}, Tensor scale, Tensor shift"
# The one place that says what an operator takes, by the names of `Given`.
_OPERATORS: dict[str, _Operator] = {
    "pack(Tensor x, Tensor? threshold=None) -> Tensor": _Operator(
        _packed, _packed_reference, _shape_of_packed
    ),
    f"conv_dot({_LAYER}, *, {INPUT}) -> Tensor": _Operator(_dots, _dots_reference, _shape_of_dots),
    f"conv({_AFFINE}, *, {INPUT}, {EPILOGUE}) -> Tensor": _Operator(
        _image, _image_reference, _shape_of_image
    ),
    f"conv_bits({_LAYER}, Tensor limit, Tensor flip, *, {INPUT}) -> Tensor": _Operator(
        _words, _words_reference, _shape_of_words
    ),
    f"conv_and_bits({_AFFINE}, Tensor next_threshold, *, {INPUT}, {EPILOGUE}) -> (Tensor, Tensor)": _Operator(
        _image_and_words, _image_and_words_reference, _shapes_of_both
    ),
    f"conv_and_bits_({_AFFINE}, Tensor next_threshold, Tensor(a!) residual, *, {INPUT}, "
    f"{EPILOGUE.replace('Tensor? residual=None, ', '')}) -> Tensor": _Operator(
        _words_over, _words_over_reference, _shape_of_words
    ),
}

_library = torch.library.Library("binarize", "DEF")


# Of an image that is packed and nothing else.
_NO_GEOMETRY = Geometry(1, 1)


def _given_by(names: list[str]) -> Callable[..., Given]:
    """What makes a record of an operator's arguments; `names` are those that may come without their names."""
    if tuple(names) == Given._fields[: len(names)]:
        return Given
    return lambda *arguments, **options: Given(**dict(zip(names, arguments)), **options)


def _of_views(name: str) -> Callable[..., Any]:
    """An operator that writes, given views that torch negates or conjugates when they are read: torch has no way for it."""

    def plain(value: Any) -> Any:
        return value.resolve_neg().resolve_conj() if isinstance(value, Tensor) else value

    def run(*arguments: Any, residual: Any = None, **options: Any) -> Any:
        *read, residual = arguments if residual is None else (*arguments, residual)
        if residual.is_neg() or residual.is_conj():
            raise UsageError(
                "residual is written to, and is a view with its sign held back; give a copy of it"
            )
        call = getattr(torch.ops.binarize, name)
        return call(*map(plain, read), residual=residual, **{key: plain(one) for key, one in options.items()})

    return run


def _register(schema: str, operator: _Operator) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    arguments = getattr(torch.ops.binarize, name).default._schema.arguments
    given_of = _given_by([one.name for one in arguments if not one.kwarg_only])

    def on_cpu(*arguments: object, **options: object) -> Any:
        given, variant = given_of(*arguments, **options), variants.active()
        if variant is None:
            check_call(given)
            return operator.reference(given)
        if given.bits is None:
            check_packable(given.x, given.threshold)
            return operator.native(given, _NO_GEOMETRY, variant)
        geometry = _geometry(given)
        # All else is checked where the kernels' call is made.
        check_image(given.x, geometry, given.threshold)
        return operator.native(given, geometry, variant)

    def checked(implementation: Callable[[Given], Any]) -> Callable[..., Any]:
        def run(*arguments: object, **options: object) -> Any:
            given = given_of(*arguments, **options)
            check_call(given)
            return implementation(given)

        return run

    _library.impl(name, on_cpu, "CPU")
    if "(a!)" in schema:
        _library.impl(name, _of_views(name), "Negative")
        _library.impl(name, _of_views(name), "Conjugate")
    _library.impl(name, checked(operator.reference), "CompositeExplicitAutograd")
    torch.library.register_fake(f"binarize::{name}", checked(operator.shape), lib=_library)


for _schema, _operator in _OPERATORS.items():
    _register(_schema, _operator)
