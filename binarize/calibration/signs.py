"""Signs of every filter by coordinate descent: those whose product with the binary input comes nearest to the float output.

For one filter with signs b, centred inputs x and centred target t, the best scale leaves the squared error

    var(t) - (b . c)^2 / (b . G b)        G = E[x x^T], c = E[x t]

so the fraction is made larger by one flip at a time, the best one, until none makes it larger. G is the same for all
filters of a group. The idea of choosing quantized weights by the Hessian of a layer's squared error is that of Frantar
et al., GPTQ, 2022, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.layers import BinaryLayer

__all__ = ["descend", "search_signs"]

# More products than this are not spent on one Gram matrix: fewer images are looked at instead.
_MOST_PRODUCTS = 1e11
# A filter of more weights would need a Gram matrix of more than 256 MiB.
_LARGEST_FILTER = 8192
# Rows of inputs at a time.
_ROWS = 1 << 14
# A flip has to make the fraction larger by this share.
_GAIN = 1e-6


def search_signs(layer: BinaryLayer, x: Tensor, wanted: Tensor, damping: float = 0.1) -> int | None:
    """Set the signs of the layer's latent weight for the input `x` and the output `wanted` (up to scale and shift).

    Returns how many signs changed; None where the layer is of a kind, or too large, to be searched. `damping`, as a share
    of the mean variance, is added to the diagonal of G: it keeps few images from deciding too much.
    """
    weight = cast(Tensor, layer.weight)
    groups = int(getattr(layer, "groups", 1))
    size = weight[0].numel()
    supported = isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)) and layer.real_weight() is weight
    if not supported or size > _LARGEST_FILTER:
        return None
    signs = _signs(layer, weight)
    if signs is None:
        return None
    best = torch.empty_like(signs)
    for filters, gram, cross in _moments(layer, x, wanted, groups):
        gram.diagonal().add_(damping * gram.diagonal().mean())
        best[filters] = descend(signs[filters], gram, cross)
    flipped = int((best != signs).sum())
    return flipped if _set_signs(layer, best.reshape(weight.shape)) else None


def descend(signs: Tensor, gram: Tensor, cross: Tensor) -> Tensor:
    """The signs after coordinate descent. Shapes: signs (O, K), gram (K, K), cross (O, K) -> (O, K)."""
    b = signs.clone()
    diagonal = gram.diagonal()
    product = (b * cross).sum(1)
    image = b @ gram
    energy = (b * image).sum(1)
    tiny = torch.finfo(gram.dtype).tiny
    rows = torch.arange(len(b), device=b.device)
    for _ in range(b.shape[1]):
        # With the product's own sign: a filter that runs against its target comes around.
        now = product * product.abs() / energy.clamp_min(tiny)
        products = product[:, None] - 2 * b * cross
        energies = (energy[:, None] - 4 * b * image + 4 * diagonal).clamp_min(tiny)
        gain, at = (products * products.abs() / energies).max(1)
        better = gain > now + _GAIN * now.abs() + tiny
        if not better.any():
            break
        chosen, at = rows[better], at[better]
        old = b[chosen, at]
        product[chosen], energy[chosen] = products[chosen, at], energies[chosen, at]
        image[chosen] -= 2 * old[:, None] * gram[at]
        b[chosen, at] = -old
    return b


def _signs(layer: BinaryLayer, weight: Tensor) -> Tensor | None:
    """Which of its two values each binary weight has, as (O, K) of -1 and +1; None where a filter has not two."""
    values = layer.binarized_weight(weight)[0].detach().flatten(1).float()
    high, low = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    exact = ((values == high) | (values == low)).all()
    return torch.where(values == high, 1.0, -1.0) if exact else None


def _set_signs(layer: BinaryLayer, signs: Tensor) -> bool:
    """Give the latent weight these signs: its own magnitudes if the binarizer then reads them so, else equal ones."""
    weight = cast(Tensor, layer.weight).data
    kept = weight.clone()
    mean = kept.abs().flatten(1).mean(1).reshape(-1, *[1] * (kept.dim() - 1))
    for candidate in (kept.abs().clamp_min(1e-3 * mean) * signs, mean * signs):
        weight.copy_(candidate)
        found = _signs(layer, weight)
        if found is not None and torch.equal(found, signs.flatten(1)):
            return True
    weight.copy_(kept)
    return False


def _moments(
    layer: BinaryLayer, x: Tensor, wanted: Tensor, groups: int
) -> list[tuple[slice, Tensor, Tensor]]:
    """Per group: (its filters, G, c of its filters)."""
    size = cast(Tensor, layer.weight)[0].numel()
    filters = len(cast(Tensor, layer.weight)) // groups
    positions = wanted[0].numel() // len(cast(Tensor, layer.weight))
    most = int(max(1, _MOST_PRODUCTS / (size**2 * groups) / positions))
    x, wanted = x[:most], wanted[:most]
    sums: list[list[Any]] = [[0, 0.0, 0.0, 0.0, 0.0] for _ in range(groups)]
    step = max(1, _ROWS // positions)
    for start in range(0, len(x), step):
        a = _patches(layer, layer.operand(x[start : start + step]))
        t = wanted[start : start + step]
        t = t.flatten(0, -2) if isinstance(layer, nn.Linear) else t.movedim(1, -1).flatten(0, -2)
        for group, total in enumerate(sums):
            rows = a[:, group * size : (group + 1) * size]
            part = t[:, group * filters : (group + 1) * filters].to(rows.dtype)
            total[0] += len(rows)
            total[1] += rows.sum(0, dtype=torch.float64)
            total[2] += part.sum(0, dtype=torch.float64)
            total[3] += rows.t() @ rows
            total[4] += part.t() @ rows
    found = []
    for group, (n, sum_a, sum_t, aa, ta) in enumerate(sums):
        mean_a, mean_t = sum_a / n, sum_t / n
        gram = (aa.double() / n - torch.outer(mean_a, mean_a)).float()
        cross = (ta.double() / n - torch.outer(mean_t, mean_a)).float()
        found.append((slice(group * filters, (group + 1) * filters), gram, cross))
    return found


def _patches(layer: BinaryLayer, a: Tensor) -> Tensor:
    """The inputs that each output is a product of: (rows, groups * K)."""
    if isinstance(layer, nn.Linear):
        return a.flatten(0, -2).float()
    conv = cast(Any, layer)
    _, padding, *_ = layer._geometry(a, None)
    sizes = [list(conv.kernel_size), list(conv.dilation), list(padding), list(conv.stride)]
    if a.dim() == 3:
        # One axis is two, of which the first has one place.
        a = a.unsqueeze(2)
        sizes = [[one, *values] for one, values in zip((1, 1, 0, 1), sizes)]
    kernel, dilation, pads, stride = (cast(tuple[int, ...], tuple(size)) for size in sizes)
    columns = F.unfold(a.float(), kernel, dilation, pads, stride)
    return columns.movedim(1, -1).flatten(0, -2)
