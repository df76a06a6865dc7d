"""What each operator computes on a CPU, by the native kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.kernels import native
from binarize.kernels.bits import WORD
from binarize.kernels.buffers.arguments import (
    Given,
    check_call,
    check_residual,
    check_tensor,
)
from binarize.kernels.computed.elsewhere import (
    words_over_elsewhere,
)
from binarize.kernels.geometry import Geometry
from binarize.kernels.variants import Variant

__all__ = [
    "dots_on_cpu",
    "image_and_words_on_cpu",
    "image_on_cpu",
    "packed_on_cpu",
    "words_on_cpu",
    "words_over_on_cpu",
]


def packed_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    return native.pack(variant, given.x, given.threshold)


def dots_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    dots = native.new_image(given.x, geometry, torch.int32)
    return _filled(given, geometry, variant, {"dots": dots})["dots"]


def image_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    image = native.new_image(given.x, geometry, torch.float32)
    return _filled(given, geometry, variant, {"result": image})["result"]


def words_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    assert given.flip is not None
    given = given._replace(flip=_without_filling(given.flip, geometry.out_channels))
    return _filled(given, geometry, variant, {"bits": native.new_words(given.x, geometry)})["bits"]


def image_and_words_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> tuple[Tensor, Tensor]:
    image, words = native.new_image(given.x, geometry, torch.float32), native.new_words(given.x, geometry)
    _filled(given, geometry, variant, {"result": image, "bits": words})
    return image, words


def words_over_on_cpu(given: Given, geometry: Geometry, variant: Variant) -> Tensor:
    x, residual = given.x, given.residual
    assert residual is not None
    if not residual.is_contiguous(memory_format=torch.channels_last):
        check_call(given)
        return words_over_elsewhere(given)
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
