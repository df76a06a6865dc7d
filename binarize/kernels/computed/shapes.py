"""What shapes the results of each operator have; sizes may be symbols."""

from __future__ import annotations

import torch
from torch import Tensor

from binarize.kernels import native
from binarize.kernels.bits import WORD
from binarize.kernels.buffers.arguments import (
    Given,
)
from binarize.kernels.computed.elsewhere import (
    geometry_given,
)

__all__ = ["shape_of_dots", "shape_of_image", "shape_of_packed", "shape_of_words", "shapes_of_both"]


def shape_of_packed(given: Given) -> Tensor:
    n, channels, height, width = given.x.shape
    return given.x.new_empty((n, height, width, -(-channels // WORD)), dtype=torch.int32)


def shape_of_dots(given: Given) -> Tensor:
    return _image_like(given, torch.int32)


def shape_of_image(given: Given) -> Tensor:
    return _image_like(given, torch.float32)


def _image_like(given: Given, dtype: torch.dtype) -> Tensor:
    n, height, width = native.image_size(given.x)
    size = (n, given.bits.shape[0], *geometry_given(given).output_size(height, width))
    return torch.empty(size, dtype=dtype, device=given.x.device, memory_format=torch.channels_last)


def shape_of_words(given: Given) -> Tensor:
    n, height, width = native.image_size(given.x)
    size = geometry_given(given).output_size(height, width)
    return given.x.new_empty((n, *size, -(-given.bits.shape[0] // WORD)), dtype=torch.int32)


def shapes_of_both(given: Given) -> tuple[Tensor, Tensor]:
    return shape_of_image(given), shape_of_words(given)
