"""Signs of every filter by coordinate descent: those whose product with the binary input comes nearest to the float output.

For one filter with signs b, centred inputs x and centred target t, the best scale leaves the squared error

    var(t) - (b . c)^2 / (b . G b)        G = E[x x^T], c = E[x t]

so the fraction is made larger by one flip at a time, the best one, until none makes it larger. G is the same for all
filters of a group. A fifth of the images is held out: each filter keeps those first flips after which the fraction is
largest on them, since a filter of many weights finds in few images what is in no other. The idea of choosing quantized
weights by the Hessian of a layer's squared error is that of Frantar et al., GPTQ, 2022, https://arxiv.org/abs/2210.17323.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.layers.layer import BinaryLayer

__all__ = ["descend", "search_signs"]

# More products than this are not spent on one Gram matrix: fewer images are looked at instead.
_MOST_PRODUCTS = 1e11
# A filter of more weights would need a Gram matrix of more than 256 MiB.
_LARGEST_FILTER = 8192
# Rows of inputs at a time.
_ROWS = 1 << 14
# One image of so many is held out.
_HELD_OUT = 5
# Magnitudes are no smaller than this share of their mean.
_LEAST = 1e-3
# A filter is not searched with fewer samples than this share of its weights: it takes minutes and finds noise.
_SAMPLES = 1 / 8
# A flip has to make the fraction larger by this share.
_GAIN = 1e-6


def search_signs(layer: BinaryLayer, x: Tensor, wanted: Tensor, damping: float = 0.1) -> int | None:
    """Set the signs of the layer's latent weight for the input `x` and the output `wanted` (up to scale and shift).

    Returns how many signs changed; None where the layer is of a kind, or too large for the images, to be searched.
    `damping`, as a share of the mean variance, is added to the diagonal of G: it keeps few images from deciding too much.

    Shapes: x (N, C, ...) or (..., C), wanted (N, O, ...) or (..., O).
    """
    weight = layer.weight
    groups = int(getattr(layer, "groups", 1))
    size = weight[0].numel()
    supported = isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)) and layer.real_weight() is weight
    supported = supported and not layer.shares_weight
    if not supported or size > _LARGEST_FILTER or wanted.numel() / len(weight) < _SAMPLES * size:
        return None
    signs = _signs(layer, weight)
    if signs is None:
        return None
    best = torch.empty_like(signs)
    images = torch.arange(_affordable(layer, wanted, groups), device=x.device)
    seen, held = images[images % _HELD_OUT < _HELD_OUT - 1], images[images % _HELD_OUT == _HELD_OUT - 1]
    judges = _moments(layer, x, wanted, groups, held) if len(held) else [None] * groups
    for (filters, gram, cross), judge in zip(_moments(layer, x, wanted, groups, seen), judges):
        gram.diagonal().add_(damping * gram.diagonal().mean())
        best[filters] = descend(signs[filters], gram, cross, None if judge is None else judge[1:])
    flipped = int((best != signs).sum())
    return flipped if _set_signs(layer, best.reshape(weight.shape)) else None


def descend(signs: Tensor, gram: Tensor, cross: Tensor, judge: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The signs after coordinate descent. Shapes: signs (O, K), gram (K, K), cross (O, K) -> (O, K).

    `judge` holds G and c of other images: each filter takes the flips up to its best one on them, where it is given.
    """
    b = signs.clone()
    path = _Fraction(b, gram, cross)
    others = None if judge is None else _Fraction(b, *judge)
    best, most = b, path.now()
    if others is not None:
        best, most = b.clone(), others.now()
    for _ in range(b.shape[1]):
        now = path.now()
        gain, at = path.after_each_flip(b).max(1)
        better = gain > now + _GAIN * now.abs() + torch.finfo(gram.dtype).tiny
        if not better.any():
            break
        chosen, at = better.nonzero()[:, 0], at[better]
        old = b[chosen, at]
        path.flip(chosen, at, old)
        b[chosen, at] = -old
        if others is not None:
            others.flip(chosen, at, old)
            found = others.now()
            risen = found > most
            # Kept in place: what is allocated anew and held at each step leaves gaps of all sizes, gigabytes in the end.
            best[risen] = b[risen]
            most = torch.where(risen, found, most)
    return best


class _Fraction:
    """(b . c) |b . c| / (b . G b) of every filter, kept while signs flip; with the product's own sign, a filter that runs
    against its target comes around."""

    def __init__(self, b: Tensor, gram: Tensor, cross: Tensor) -> None:
        self.gram, self.cross = gram, cross
        self.diagonal = gram.diagonal()
        self.product = (b * cross).sum(1)
        self.image = b @ gram
        self.energy = (b * self.image).sum(1)
        self.tiny = torch.finfo(gram.dtype).tiny

    def now(self) -> Tensor:
        """(O,)"""
        return self.product * self.product.abs() / self.energy.clamp_min(self.tiny)

    def after_each_flip(self, b: Tensor) -> Tensor:
        """(O, K): the fraction if that one sign were flipped."""
        products = self.product[:, None] - 2 * b * self.cross
        energies = (self.energy[:, None] - 4 * b * self.image + 4 * self.diagonal).clamp_min(self.tiny)
        return products * products.abs() / energies

    def flip(self, chosen: Tensor, at: Tensor, old: Tensor) -> None:
        """Follow the flip of one sign, `old`, at `at` in every chosen filter."""
        self.product[chosen] -= 2 * old * self.cross[chosen, at]
        self.energy[chosen] += 4 * (self.diagonal[at] - old * self.image[chosen, at])
        self.image[chosen] -= 2 * old[:, None] * self.gram[at]


def _signs(layer: BinaryLayer, weight: Tensor) -> Tensor | None:
    """Which of its two values each binary weight has, as (O, K) of -1 and +1; None where a filter has not two."""
    values = layer.binarized_weight(weight)[0].detach().flatten(1).float()
    high, low = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
    exact = ((values == high) | (values == low)).all()
    return torch.where(values == high, 1.0, -1.0) if exact else None


def _set_signs(layer: BinaryLayer, signs: Tensor) -> bool:
    """Give the latent weight these signs; of three sets of magnitudes the first that the binarizer then reads so.

    Its own; its distances from its mean, balanced so that the new mean is zero, for AdaBin, whose centre it is; equal ones.
    """
    weight = layer.weight.data
    kept = weight.clone()
    scale = kept.abs().flatten(1).mean(1).reshape(-1, *[1] * (kept.dim() - 1))
    for candidate in (
        kept.abs().clamp_min(_LEAST * scale) * signs,
        _balanced(kept.flatten(1), signs.flatten(1)).reshape(kept.shape),
        scale * signs,
    ):
        weight.copy_(candidate)
        found = _signs(layer, weight)
        if found is not None and torch.equal(found, signs.flatten(1)):
            return True
    weight.copy_(kept)
    return False


def _balanced(weight: Tensor, signs: Tensor) -> Tensor:
    """(O, K) -> (O, K) with these signs and mean zero in each row: each weight keeps its distance from the row's old mean, up
    to a factor for each sign."""
    distance = (weight - weight.mean(1, keepdim=True)).abs()
    distance = distance.clamp_min(_LEAST * distance.mean(1, keepdim=True))
    above = distance * (signs > 0)
    below = distance * (signs < 0)
    half = distance.sum(1, keepdim=True) / 2
    # Where all signs are equal there is no such row; the caller finds that out.
    up, down = (
        half / part.sum(1, keepdim=True).clamp_min(torch.finfo(part.dtype).tiny) for part in (above, below)
    )
    return above * up - below * down


def _affordable(layer: BinaryLayer, wanted: Tensor, groups: int) -> int:
    """How many images are looked at."""
    size = layer.weight[0].numel()
    most = int(max(1, _MOST_PRODUCTS / (size**2 * groups) / _positions(layer, wanted)))
    return min(most, len(wanted))


def _positions(layer: BinaryLayer, wanted: Tensor) -> int:
    """Of one image."""
    return wanted[0].numel() // len(layer.weight)


def _moments(
    layer: BinaryLayer, x: Tensor, wanted: Tensor, groups: int, images: Tensor
) -> list[tuple[slice, Tensor, Tensor]]:
    """Per group: (its filters, G, c of its filters), over those images."""
    size = layer.weight[0].numel()
    filters = len(layer.weight) // groups
    positions = _positions(layer, wanted)
    sums: list[list[Any]] = [[0, 0.0, 0.0, 0.0, 0.0] for _ in range(groups)]
    step = max(1, _ROWS // positions)
    for some in images.split(step):
        a = _patches(layer, layer.operand(x[some]))
        t = wanted[some]
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
    conv: Any = layer
    _, padding, *_ = layer._geometry(a, None)
    sizes = [list(conv.kernel_size), list(conv.dilation), list(padding), list(conv.stride)]
    if a.dim() == 3:
        # One axis is two, of which the first has one place.
        a = a.unsqueeze(2)
        sizes = [[one, *values] for one, values in zip((1, 1, 0, 1), sizes)]
    kernel, dilation, pads, stride = map(tuple, sizes)
    columns = F.unfold(a.float(), kernel, dilation, pads, stride)
    return columns.movedim(1, -1).flatten(0, -2)
