"""Means and variances per channel that a model's parameters promise for its values, before any image is seen.

A normalized channel has mean 0 and variance 1 before its affine map, and what a layer without a norm yields for
independent inputs of unit variance has the variance of its filter's squared weights. Values that are added count as
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.planning.record.origin import Origin
from binarize.planning.thresholds import KNOWN_ACTIVATIONS, tells

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
assert _FUNCTIONS.keys() == KNOWN_ACTIVATIONS
# Points of a standard normal distribution, equally probable: enough for a start that calibration will refine.
_QUANTILES = 64


@torch.no_grad()
def promised(root: nn.Module, origin: Origin) -> tuple[Tensor, Tensor] | None:
    """(means, variances), each (C,), of the values of an origin.

    None where a module has no such numbers, an activation is unknown, or channels do not fit.
    """
    function = _FUNCTIONS.get(origin.activation)
    before = _of_module(root, origin.norm) if origin.terms is None else _joined(root, origin, origin.terms)
    if before is None or function is None:
        return None
    mean, variance = before
    # The quantiles are made where the parameters live, so that a module without data stays one.
    grid = (torch.arange(_QUANTILES, device=mean.device, dtype=torch.float32) + 0.5) / _QUANTILES
    # The largest of n values lies below the quantile u with probability u^n.
    normal = torch.erfinv(2 * grid ** (1 / origin.window) - 1) * 2**0.5
    values = function(mean[:, None] + variance.sqrt()[:, None] * normal) * origin.factor
    return values.mean(1), values.var(1, correction=0)


def _of_module(root: nn.Module, path: str | None) -> tuple[Tensor, Tensor] | None:
    if path is None:
        return None
    module: Any = root.get_submodule(path)
    if not tells(module):
        return None
    weight, bias = module.weight, module.bias
    if weight is None:
        channels = getattr(module, "num_features", getattr(module, "num_channels", 0))
        return torch.zeros(channels), torch.ones(channels)
    spread = weight.float().square()
    if weight.dim() > 1:
        spread = spread.flatten(1).sum(1)
    return torch.zeros_like(spread) if bias is None else bias.float(), spread


def _joined(root: nn.Module, origin: Origin, joined: Sequence[Origin]) -> tuple[Tensor, Tensor] | None:
    terms = [promised(root, term) for term in joined if term.op != "unit"]
    known = [term for term in terms if term is not None]
    if len(known) < len(terms) or not known:
        return None
    means, variances = [mean for mean, _ in known], [variance for _, variance in known]
    if origin.op == "concat":
        return torch.cat(means), torch.cat(variances)
    if origin.op in ("repeat", "mean"):
        times = origin.times
        if origin.op == "repeat":
            return means[0].repeat(times), variances[0].repeat(times)
        if len(means[0]) % times:
            return None
        mean, variance = (moment.unflatten(0, (times, -1)).mean(0) for moment in (means[0], variances[0]))
        return mean, variance / times
    if len({len(mean) for mean in means}) > 1:
        return None
    # A new norm behind a projection adds nothing to the mean and 1 to the variance.
    units = len(joined) - len(terms)
    return torch.stack(means).sum(0), torch.stack(variances).sum(0) + units
