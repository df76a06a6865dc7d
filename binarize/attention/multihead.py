"""Attention with its projections as linear layers of their own, so that each can be kept or replaced.

    x ── in_proj ── queries, keys, values ── softmax(q k^T / sqrt(d) + mask) v ── out_proj ──

`nn.MultiheadAttention` computes both projections from bare weights inside of one function, where no layer can take
their place; so does torchvision's Swin (windows.py), and so do timm's BEiT, EVA and Swin v2 with their `qkv`,
unless they are told to add its bias apart. The products of queries, keys and values hold no weight and are left as they
are.

Source: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762, equation 1.
"""

from __future__ import annotations

import math

import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.errors import UsageError

__all__ = ["Explicit", "ExplicitAttention"]


class Explicit(nn.Module):
    """An attention that calls its projections; a subclass of what it was before it was made explicit."""


class ExplicitAttention(Explicit, nn.MultiheadAttention):
    """Multi-head attention as torch computes it, up to rounding, by two linear layers `in_proj` and `out_proj`.

    Made from an `nn.MultiheadAttention` by `make_explicit`: `in_proj_weight` is the weight of `in_proj` then.
    """

    in_proj: nn.Linear

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See `nn.MultiheadAttention`. A mask that is causal has to be given as one, as there.

        Shapes: query (N, L, E), key (N, S, Ek), value (N, S, Ev) where `batch_first`, else (L, N, E) and so on, or without
        a batch (L, E) -> output like the query, weights (N, L, S), with a head axis (N, heads, L, S) where they are not
        averaged, or None.
        """
        if is_causal and attn_mask is None:
            raise UsageError("is_causal only says what attn_mask is; expected the mask as well")
        # Where torch.fx traces nothing tells the axes; a batch is what a model gives.
        batched = isinstance(query, torch.fx.Proxy) or query.dim() == 3
        q, k, v = self._projected(query, key, value)
        if not batched:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat([x, b.expand(len(x), 1, -1)], 1) for x, b in ((k, self.bias_k), (v, self.bias_v))
            )
            added += 1
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            added += 1
        mask = _joined_mask(attn_mask, key_padding_mask, q, added)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            products = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = F.softmax(products if mask is None else products + mask, -1)
            weights = F.dropout(weights, dropout) if dropout else weights
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        # Tokens first in memory, as torch leaves them: a dropout behind then draws the same numbers.
        out = self.out_proj(out.permute(2, 0, 1, 3).flatten(2))
        if not batched:
            return out.squeeze(1), None if weights is None else weights.squeeze(0)
        return (out.transpose(0, 1) if self.batch_first else out), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values: one product where all three are made of the same tensor."""
        inputs = (query, key, value)
        if query is key and key is value:
            return self.in_proj(query).chunk(3, -1)
        if type(self.in_proj) is not nn.Linear:
            return tuple(self.in_proj(x).chunk(3, -1)[i] for i, x in enumerate(inputs))
        weights = self.in_proj.weight.chunk(3)
        biases = (None,) * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
        return tuple(F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases))


def _joined_mask(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor, added: int) -> Tensor | None:
    """What is added to the products: (N or 1, heads or 1, L or 1, S), -inf where nothing is attended to.

    `added` keys stand behind those that the masks speak of; all attend to them.
    """
    masks = []
    if attn_mask is not None:
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (len(q), -1))
        masks.append(_as_summand(attn_mask, q))
    if padding is not None:
        masks.append(_as_summand(padding[:, None, None], q))
    if not masks:
        return None
    return F.pad(sum(masks[1:], masks[0]), (0, added)) if added else sum(masks[1:], masks[0])


def _as_summand(mask: Tensor, q: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(q.dtype)
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, -math.inf)
