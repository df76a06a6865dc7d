"""Attention, and sums of products by letters, as matrix products. NotImplemented stands for what is not taken apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attention", "einsum", "heads"]


def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **keywords: Any) -> Any:
    """F.scaled_dot_product_attention as a matrix product, a softmax and a matrix product."""
    names = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = {**dict(zip(names, (None, 0.0, False, None, False))), **dict(zip(names, args)), **keywords}
    scale, attn_mask = given["scale"], given["attn_mask"]
    if given["enable_gqa"] or given["dropout_p"]:
        return NotImplemented
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    weight = (query * factor) @ key.transpose(-2, -1)
    if given["is_causal"]:
        later = torch.ones(weight.shape[-2:], dtype=torch.bool).triu(1)
        weight = weight.masked_fill(later, -math.inf)
    if attn_mask is not None:
        weight = (
            weight.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else weight + attn_mask
        )
    return weight.softmax(-1) @ value


def heads(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int, *args: Any, **keywords: Any
) -> Any:
    """nn.MultiheadAttention's own function, (length, batch, features), in its ordinary form."""
    names = ("in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight",
             "out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask")  # fmt: skip
    given = {**dict(zip(names, args)), **keywords}
    odd = ("bias_k", "bias_v", "key_padding_mask", "static_k", "static_v", "q_proj_weight")
    if (
        any(given.get(name) is not None for name in odd)
        or given.get("add_zero_attn")
        or given.get("is_causal")
    ):
        return NotImplemented
    weights, bias = given["in_proj_weight"].chunk(3), given["in_proj_bias"]
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    parts = []
    for x, weight, shift in zip((query, key, value), weights, biases):
        y = F.linear(x, weight, shift)
        parts.append(y.reshape(x.shape[0], -1, embed_dim // num_heads).transpose(0, 1))
    q, k, v = parts
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(1, 2)
    mask = given.get("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    shares = scores.softmax(-1)
    y = (shares @ v).transpose(0, 1).reshape(query.shape)
    y = F.linear(y, given["out_proj_weight"], given["out_proj_bias"])
    if not given.get("need_weights", True):
        return y, None
    shares = shares.reshape(query.shape[1] if query.dim() == 3 else 1, num_heads, *shares.shape[1:])
    shares = shares.mean(1) if given.get("average_attn_weights", True) else shares
    return y, shares


def einsum(equation: str, *operands: Any) -> Any:
    """A sum of products by letters, of two tensors, as one matrix product."""
    tensors = (
        list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    )
    given, arrow, out = equation.replace(" ", "").partition("->")
    letters = given.split(",")
    if "." in equation or not arrow or len(tensors) != 2 or any(len(set(one)) < len(one) for one in letters):
        return NotImplemented
    (left, right), (a, b) = letters, tensors
    summed = [x for x in left if x in right and x not in out]
    both = [x for x in left if x in right and x in out]
    only = [[x for x in one if x not in both and x not in summed] for one in letters]
    if any(x not in out for x in (*only[0], *only[1])):
        return NotImplemented
    sizes = {**dict(zip(left, a.shape)), **dict(zip(right, b.shape))}

    def shaped(x: Tensor, order: str, *groups: list[str]) -> Tensor:
        turned = x.permute([order.index(letter) for group in groups for letter in group])
        return turned.reshape([math.prod(sizes[letter] for letter in group) for group in groups])

    y = shaped(a, left, both, only[0], summed) @ shaped(b, right, both, summed, only[1])
    made = [*both, *only[0], *only[1]]
    return y.reshape([sizes[x] for x in made]).permute([made.index(x) for x in out])
