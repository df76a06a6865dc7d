"""Parameters and images as the kernels read them: in one piece, in one of three forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels import reference
from binarize.kernels.bits import pack_words
from binarize.kernels.buffers.arguments import (
    check_parameters,
)
from binarize.kernels.buffers.memory import aligned, check_readable
from binarize.kernels.geometry import Geometry

__all__ = ["CPU", "in_one_piece", "read_parameters", "readable"]

NHWC, NCHW, WORDS = 0, 1, 2  # INPUT_* of kernels.h
CPU = torch.device("cpu")


def read_parameters(parameters: Mapping[str, Any], geometry: Geometry, planes: int) -> dict[str, Tensor]:
    """The parameters that are given, by field, each as the kernels read it.

    Raises: UsageError, where one has no memory, or would have to be copied and is none of this geometry.
    """
    given = {name: tensor for name, tensor in parameters.items() if tensor is not None}
    for name, tensor in given.items():
        check_readable(name, tensor)
    odd = [name for name, tensor in given.items() if not tensor.is_contiguous()]
    if odd:  # a copy of one that is a number repeated may be larger than memory
        sized = {name: tensor for name, tensor in given.items() if name != "thresholds"}
        check_parameters(sized, geometry, planes, CPU)
    return {name: in_one_piece(name, tensor) for name, tensor in given.items()}


def in_one_piece(name: str, tensor: Tensor) -> Tensor:
    """A parameter as the kernels read it. Raises: UsageError, where it has no memory that they could read."""
    check_readable(name, tensor)
    if not tensor.is_cpu:
        raise UsageError(f"{name} is on {tensor.device}; expected a tensor on cpu")
    return aligned(tensor.contiguous().resolve_neg())


def readable(x: Tensor, geometry: Geometry, threshold: Tensor | None) -> tuple[Tensor, int, Tensor | None]:
    """An image that was checked in one of the kernels' three forms, which one, and the thresholds still to be applied."""
    if x.dtype == torch.int32:
        return aligned(x.contiguous()), WORDS, None
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if x.dtype != torch.float32:  # a float32 image of it could round to zero and change signs
        if threshold is not None and threshold.dim() == 2:
            raise UsageError(
                f"input is {x.dtype}; several thresholds a channel need a 32 or 16 bit float image"
            )
        (mask,) = reference.input_masks(x, geometry, threshold)
        return pack_words(mask.permute(0, 2, 3, 1)), WORDS, None
    x = aligned(x)
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, NHWC, threshold
    if x.is_contiguous():
        return x, NCHW, threshold
    return x.contiguous(memory_format=torch.channels_last), NHWC, threshold
