"""Torchvision's window attention (Swin) with its projections as layers that are called.

There one function computes everything from the bare weights of `qkv` and `proj`, where no layer can take their place.

    (N, H, W, C) ── pad ── roll ── windows ── qkv ── softmax(q k^T + bias + mask) v ── proj ── and back

Source: Liu et al., 2021, https://arxiv.org/abs/2103.14030, section 3.2; cosines of queries and keys in version 2: Liu et
al., 2022, https://arxiv.org/abs/2111.09883, section 3.3.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from binarize.attention.multihead import Explicit

__all__ = ["ExplicitWindowAttention", "ExplicitWindowAttentionV2", "make_explicit_windows"]

# What the paper's code adds to products of tokens that are no neighbours.
_APART = -100.0
# The largest factor of a cosine.
_LARGEST_SCALE = math.log(100.0)


class ExplicitWindowAttention(Explicit, ShiftedWindowAttention):
    """Window attention by products of queries and keys. Shapes: (N, H, W, C) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, None)


class ExplicitWindowAttentionV2(Explicit, ShiftedWindowAttentionV2):
    """Window attention by cosines of queries and keys, times a learned factor a head; the keys have no bias.

    Shapes: (N, H, W, C) -> the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _attend(self, x, cast(Tensor, self.logit_scale).clamp(max=_LARGEST_SCALE).exp())


def make_explicit_windows(attention: nn.Module) -> None:
    """Let one of torchvision's window attentions call its projections. In place: the object stays."""
    if type(attention) is ShiftedWindowAttention:
        attention.__class__ = ExplicitWindowAttention
        return
    attention.__class__ = ExplicitWindowAttentionV2
    bias = cast(Any, attention).qkv.bias
    if bias is not None:
        # The function that is replaced leaves out this part, whatever it holds; training never moves it from 0.
        bias.data[len(bias) // 3 : 2 * len(bias) // 3] = 0.0


def _attend(layer: Any, x: Tensor, scale: Tensor | None) -> Tensor:
    """Shapes: (N, H, W, C) -> same."""
    n, height, width, _ = x.shape
    window = layer.window_size
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    sizes = x.shape[1:3]
    # A window as large as the image has no neighbour to take tokens from.
    shift = [0 if w >= size else s for w, size, s in zip(window, sizes, layer.shift_size)]
    if any(shift):
        x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
    tokens = _windows(x, window)
    heads = layer.qkv(tokens).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = heads.unbind()
    if scale is None:
        products = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    else:
        products = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * scale
    products = products + layer.get_relative_position_bias()
    if any(shift):
        mask = _mask(sizes, window, shift, products)
        products = (products.unflatten(0, (n, -1)) + mask).flatten(0, 1)
    weights = F.dropout(products.softmax(-1), layer.attention_dropout, layer.training)
    out = layer.proj((weights @ v).transpose(1, 2).flatten(2))
    out = F.dropout(out, layer.dropout, layer.training)
    grid = [size // w for size, w in zip(sizes, window)]
    out = out.unflatten(1, window).unflatten(0, (n, *grid)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if any(shift):
        out = torch.roll(out, (shift[0], shift[1]), (1, 2))
    return out[:, :height, :width]


def _windows(x: Tensor, window: list[int]) -> Tensor:
    """(N, H, W, C) -> (N * windows, tokens of a window, C)."""
    x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _mask(sizes: torch.Size, window: list[int], shift: list[int], like: Tensor) -> Tensor:
    """(windows, 1, T, T): what is added, so that tokens rolled in from the other side are not attended to.

    Along an axis there are three regions: the windows that nothing was rolled into, and the two parts of the last one.
    """
    regions = []
    for size, w, s in zip(sizes, window, shift):
        place = torch.arange(size, device=like.device)
        regions.append((place >= size - w).long() + (place >= size - s).long() if s else 0 * place)
    both = 3 * regions[0][:, None] + regions[1]
    of_window = _windows(both[None, :, :, None], window).squeeze(-1)
    apart = of_window[:, None] != of_window[:, :, None]
    return torch.zeros_like(apart, dtype=like.dtype).masked_fill_(apart, _APART)[:, None]
