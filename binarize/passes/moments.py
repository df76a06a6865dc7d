"""Means and variances per channel that a model's parameters promise for its values, before any image is seen.

A normalized channel has mean 0 and variance 1 before its affine map, and what a layer without a norm yields for
independent inputs of unit variance has the variance of its filter's squared weights. Values that are added count as
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["promised"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda z: z,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "leakyrelu": F.leaky_relu,
}
# Points of a standard normal distribution, equally probable: enough for a start that calibration will refine.
_QUANTILES = 64


@torch.no_grad()
def promised(root: nn.Module, origin: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """(means, variances), each (C,), of the values of an origin (see `binarize.plan_origins`).

    None where a module has no such numbers, an activation is unknown, or channels do not fit.
    """
    function = _FUNCTIONS.get(str(origin["activation"]))
    before = _joined(root, origin) if "terms" in origin else _of_module(root, origin["norm"])
    if before is None or function is None:
        return None
    mean, variance = before
    # The quantiles are made where the parameters live, so that a module without data stays one.
    grid = (torch.arange(_QUANTILES, device=mean.device, dtype=torch.float32) + 0.5) / _QUANTILES
    # The largest of n values lies below the quantile u with probability u^n.
    normal = torch.erfinv(2 * grid ** (1 / int(origin["window"])) - 1) * 2**0.5
    values = function(mean[:, None] + variance.sqrt()[:, None] * normal) * float(origin["factor"])
    return values.mean(1), values.var(1, correction=0)


def _of_module(root: nn.Module, path: str | None) -> tuple[Tensor, Tensor] | None:
    if path is None:
        return None
    module = root.get_submodule(path)
    bias, weight = getattr(module, "bias", None), getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or getattr(module, "transposed", False):
        return None
    spread = weight.float().square()
    if weight.dim() > 1:
        spread = spread.flatten(1).sum(1)
        bias = torch.zeros_like(spread) if bias is None else bias
    if not isinstance(bias, Tensor) or bias.shape != spread.shape:
        return None
    return bias.float(), spread


def _joined(root: nn.Module, origin: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    terms = [promised(root, term) for term in origin["terms"]]
    known = [term for term in terms if term is not None]
    if len(known) < len(terms):
        return None
    means, variances = [mean for mean, _ in known], [variance for _, variance in known]
    if origin["op"] == "concat":
        return torch.cat(means), torch.cat(variances)
    if len({len(mean) for mean in means}) > 1:
        return None
    return torch.stack(means).sum(0), torch.stack(variances).sum(0)
