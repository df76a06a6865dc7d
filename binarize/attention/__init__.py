"""Float attentions taken apart, so that their projections are layers of their own.

explicit.py   which attentions can be taken apart, and taking them apart
multihead.py  attention with its projections as linear layers of their own
windows.py    Torchvision's window attention (Swin) with its projections as layers that are called
"""

from __future__ import annotations

from binarize.attention.multihead import ExplicitAttention

__all__ = ["ExplicitAttention"]
