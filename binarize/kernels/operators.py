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
from binarize.kernels import variants
from binarize.kernels.buffers.arguments import (
    Given,
    check_call,
    check_image,
    check_packable,
)
from binarize.kernels.computed.elsewhere import (
    dots_elsewhere,
    geometry_given,
    image_and_words_elsewhere,
    image_elsewhere,
    packed_elsewhere,
    words_elsewhere,
    words_over_elsewhere,
)
from binarize.kernels.computed.on_cpu import (
    dots_on_cpu,
    image_and_words_on_cpu,
    image_on_cpu,
    packed_on_cpu,
    words_on_cpu,
    words_over_on_cpu,
)
from binarize.kernels.computed.shapes import (
    shape_of_dots,
    shape_of_image,
    shape_of_packed,
    shape_of_words,
    shapes_of_both,
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
        packed_on_cpu, packed_elsewhere, shape_of_packed
    ),
    f"conv_dot({_LAYER}, *, {INPUT}) -> Tensor": _Operator(dots_on_cpu, dots_elsewhere, shape_of_dots),
    f"conv({_AFFINE}, *, {INPUT}, {EPILOGUE}) -> Tensor": _Operator(
        image_on_cpu, image_elsewhere, shape_of_image
    ),
    f"conv_bits({_LAYER}, Tensor limit, Tensor flip, *, {INPUT}) -> Tensor": _Operator(
        words_on_cpu, words_elsewhere, shape_of_words
    ),
    f"conv_and_bits({_AFFINE}, Tensor next_threshold, *, {INPUT}, {EPILOGUE}) -> (Tensor, Tensor)": _Operator(
        image_and_words_on_cpu, image_and_words_elsewhere, shapes_of_both
    ),
    f"conv_and_bits_({_AFFINE}, Tensor next_threshold, Tensor(a!) residual, *, {INPUT}, "
    f"{EPILOGUE.replace('Tensor? residual=None, ', '')}) -> Tensor": _Operator(
        words_over_on_cpu, words_over_elsewhere, shape_of_words
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
        geometry = geometry_given(given)
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
