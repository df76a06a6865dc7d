"""Gradients of 1x1 convolutions as matrix products, which a CPU computes faster than a convolution's own backward.

The convolution's backward lays its operands out anew for each of its two products. A 1x1 convolution is a matrix
product of pixels and filters as its tensors lie.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["is_pointwise", "pointwise_backward"]

# Pixels of a sample from which its own product pays; with fewer, those of all samples are taken together.
_PIXELS = 64


def is_pointwise(g: Tensor, a: Tensor, w: Tensor, geometry: tuple[Any, ...]) -> bool:
    """Whether `pointwise_backward` serves a convolution of this geometry: (stride, padding, dilation, transposed, output
    padding, groups).
    """
    stride, padding, _, transposed, _, groups = geometry
    if transposed or groups != 1 or any(padding) or {*w.shape[2:], *stride} != {1}:
        return False
    return a.is_cpu and bool(a.numel()) and {g.dtype, a.dtype, w.dtype} == {torch.float32}


def pointwise_backward(
    g: Tensor, a: Tensor, w: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None] | None:
    """(da, dw) of a 1x1 convolution of stride 1 without padding and groups, as far as `needs` asks for them.

    g (N, O, ...), a (N, I, ...), w (O, I, 1, ...); float32 on a CPU. None where a lies in memory neither in planes
    nor channels last.
    """
    filters = w.flatten(1)
    if a.is_contiguous():
        g = g.contiguous()
        pixels, outputs, inputs = a[0, 0].numel(), g.shape[1], a.shape[1]
        # Each sample's own product is as large as the weight: no larger than the images, or memory is lost on them.
        if pixels >= _PIXELS and outputs * inputs <= pixels * (outputs + inputs):
            da, dw = _by_sample(g.flatten(2), a.flatten(2), filters, needs)
        else:
            da, dw = _by_channel(g.flatten(2), a.flatten(2), filters, needs)
    elif a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        g = g.contiguous(memory_format=torch.channels_last)
        da, dw = _by_pixel(g.permute(0, 2, 3, 1), a.permute(0, 2, 3, 1), filters, needs)
        da = None if da is None else da.permute(0, 3, 1, 2)
    else:
        return None
    return None if da is None else da.view(a.shape), None if dw is None else dw.view(w.shape)


_Pair = tuple[Tensor | None, Tensor | None]


def _by_sample(g: Tensor, a: Tensor, filters: Tensor, needs: tuple[bool, bool]) -> _Pair:
    da = torch.matmul(filters.t(), g) if needs[0] else None
    dw = torch.bmm(g, a.transpose(1, 2)).sum(0) if needs[1] else None
    return da, dw


def _by_channel(g: Tensor, a: Tensor, filters: Tensor, needs: tuple[bool, bool]) -> _Pair:
    n, channels, pixels = a.shape
    rows = g.transpose(0, 1).reshape(g.shape[1], -1)
    da = dw = None
    if needs[0]:
        da = torch.mm(filters.t(), rows).view(channels, n, pixels).transpose(0, 1).contiguous()
    if needs[1]:
        dw = torch.mm(rows, a.transpose(0, 1).reshape(channels, -1).t())
    return da, dw


def _by_pixel(g: Tensor, a: Tensor, filters: Tensor, needs: tuple[bool, bool]) -> _Pair:
    rows = g.reshape(-1, g.shape[-1])
    da = torch.mm(rows, filters).view(a.shape) if needs[0] else None
    dw = torch.mm(rows.t(), a.reshape(-1, a.shape[-1])) if needs[1] else None
    return da, dw
