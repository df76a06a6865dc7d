"""Interpolation and pools of uneven windows as weighted sums along one axis after the other.

Torch says the weights: what it makes of an axis that holds a single 1. The last axis comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Taps", "interpolation_taps", "pool_taps", "run_taps"]

# (where each result reads, its weights): int64 and float32 (out, each).
Taps = tuple[Tensor, Tensor]


def interpolation_taps(sizes: Sequence[int], out: Sequence[int], given: dict[str, Any]) -> list[Taps]:
    """Of each spatial axis of an image of these sizes."""
    mode = {"bilinear": "linear", "linear": "linear", "bicubic": "bicubic", "area": "area"}[given["mode"]]
    scales = given.get("scale_factor")
    each = tuple(scales) if isinstance(scales, (tuple, list)) else (scales,) * len(sizes)
    kept = [
        scale if scale is not None and not given.get("recompute_scale_factor") else None for scale in each
    ]
    options = (mode, bool(given.get("align_corners")), bool(given.get("antialias")))
    return [_line(n, m, scale, *options) for n, m, scale in zip(sizes, out, kept)]


def pool_taps(sizes: Sequence[int], out: Sequence[int]) -> list[Taps]:
    """Of an adaptive average pool."""
    return [_line(n, m, None, "area", False, False) for n, m in zip(sizes, out)]


@cache
def _line(size: int, out: int, scale: float | None, mode: str, corners: bool, antialias: bool) -> Taps:
    ones = torch.eye(size, dtype=torch.float32)
    asked: dict[str, Any] = {"scale_factor": scale} if scale else {"size": out}
    with torch.no_grad():
        if mode == "area":
            y = F.adaptive_avg_pool1d(ones[None], out)[0]
        elif mode == "linear" and not antialias:
            y = F.interpolate(ones[None], mode="linear", align_corners=corners, **asked)[0]
        else:
            asked = {
                key: (1.0, value) if key == "scale_factor" else (size, value) for key, value in asked.items()
            }
            mode = "bicubic" if mode == "bicubic" else "bilinear"
            y = F.interpolate(
                ones[None, None], mode=mode, align_corners=corners, antialias=antialias, **asked
            )[0, 0]
    weights = y.t()  # (out, size)
    each = max(int((weights != 0).sum(1).max()), 1)
    order = (weights == 0).to(torch.int8).argsort(dim=1, stable=True)[:, :each]
    return order, weights.gather(1, order).contiguous()


def run_taps(x: Tensor, lines: Sequence[Taps]) -> Tensor:
    """The sums in the order of the places that they read."""
    for axis, (places, weights) in reversed(list(zip(range(-len(lines), 0), lines))):
        shape = [1] * x.dim()
        shape[axis] = len(places)
        total = None
        for k in range(places.shape[1]):
            part = x.index_select(axis, places[:, k]) * weights[:, k].reshape(shape)
            total = (torch.zeros_like(part) if total is None else total) + part
        assert total is not None
        x = total
    return x
