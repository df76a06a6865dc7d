"""Float attentions taken apart, so that their projections are layers of their own."""

from __future__ import annotations

from binarize.attention.multihead import ExplicitAttention

__all__ = ["ExplicitAttention"]
