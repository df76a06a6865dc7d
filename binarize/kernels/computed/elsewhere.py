"""What each operator computes elsewhere, and without the extension: the reference, with the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.kernels import reference
from binarize.kernels.bits import pack_words
from binarize.kernels.buffers.arguments import (
    Given,
    check_spread,
)
from binarize.kernels.geometry import Geometry, geometry_of

__all__ = [
    "dots_elsewhere",
    "geometry_given",
    "image_and_words_elsewhere",
    "image_elsewhere",
    "packed_elsewhere",
    "words_elsewhere",
    "words_over_elsewhere",
]


def packed_elsewhere(given: Given) -> Tensor:
    (mask,) = reference.input_masks(given.x, Geometry(given.x.shape[1], 1), given.threshold)
    return pack_words(mask.permute(0, 2, 3, 1))


def dots_elsewhere(given: Given) -> Tensor:
    (mask,) = reference.input_masks(given.x, geometry_given(given), given.threshold)
    return _channels_last(reference.dot(mask, given.bits, geometry_given(given), given.zero_one))


def image_elsewhere(given: Given) -> Tensor:
    assert given.scale is not None and given.shift is not None
    y = reference.conv_affine(
        given.x, given.bits, geometry_given(given), given.scale, given.shift, threshold=given.threshold,
        zero_one=given.zero_one, window_scale=given.window_scale, border=given.border, residual=given.residual,
        activation=given.activation, activation_first=given.activation_first,
    )  # fmt: skip
    return _channels_last(y)


def words_elsewhere(given: Given) -> Tensor:
    assert given.limit is not None
    return reference.below(dots_elsewhere(given), given.limit, given.flip)


def image_and_words_elsewhere(given: Given) -> tuple[Tensor, Tensor]:
    assert given.next_threshold is not None
    y = image_elsewhere(given)
    return y, reference.below(y, given.next_threshold)


def words_over_elsewhere(given: Given) -> Tensor:
    assert given.residual is not None
    check_spread(given.residual)
    y, words = image_and_words_elsewhere(given)
    given.residual.copy_(y)
    return words


def geometry_given(given: Given) -> Geometry:
    return geometry_of(given.bits, given.sizes)


def _channels_last(y: Tensor) -> Tensor:
    return y.contiguous(memory_format=torch.channels_last)
