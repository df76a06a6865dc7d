"""Terms of the loss that push latent weights towards two values, so that fewer of them change their sign at the end.

    manhattan   sum | alpha - |w| |     Darabi et al., Regularized Binary Network Training, 2018,
    euclidean   sum (alpha - |w|)^2     https://arxiv.org/abs/1812.11800 (R1 and R2)
    bipolar     sum (1 - w^2)           Tang, Hua, Wang, AAAI 2017, https://doi.org/10.1609/aaai.v31i1.10862

    oscillation mean | |w| - 1 | of a layer        BHViT, CVPR 2025: latents near 0 turn to and fro; as in the authors' code,
                                                  https://github.com/WanRui37/BHViT, which averages over layers too
    uncertainty mean p (1 - p), p = sigmoid(w)   least where a weight's sign is certain; for random signs

The first three are sums over all weights, as published: the factors that go with them are tiny (1e-7, 1e-6, 5e-7). `bipolar`
has no minimum; it is for weights that are clipped to [-1, 1]. alpha is what a layer learns as the scale of its filters
(`ienet.OutputScale`), so that term and loss train it together; where it learns none, alpha lies where the term is least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from binarize.binarizers.ienet import OutputScale
from binarize.errors import UsageError, did_you_mean
from binarize.layers.layer import BinaryLayer

__all__ = [
    "REGULARIZERS",
    "bipolar",
    "euclidean",
    "manhattan",
    "oscillation",
    "regularization",
    "uncertainty",
]


def manhattan(w: Tensor, alpha: Tensor) -> Tensor:
    """sum | alpha - |w| |. Shapes: w (O, ...), alpha (O,), one a filter -> ()."""
    return (_per_filter(alpha, w) - _magnitude(w)).abs().sum()


def euclidean(w: Tensor, alpha: Tensor) -> Tensor:
    """sum (alpha - |w|)^2. Shapes: w (O, ...), alpha (O,), one a filter -> ()."""
    return (_per_filter(alpha, w) - _magnitude(w)).square().sum()


def bipolar(w: Tensor) -> Tensor:
    """sum (1 - w^2). Shapes: w any -> ()."""
    return (1 - w.square()).sum()


def _magnitude(w: Tensor) -> Tensor:
    """|w|, whose slope at 0 is that of the sign there: +1."""
    return w * torch.where(w < 0, -1.0, 1.0).to(w.dtype)


def _per_filter(alpha: Tensor, w: Tensor) -> Tensor:
    return alpha.reshape(-1, *[1] * (w.dim() - 1))


# Where a layer has no alpha of its own, each is where its term is least: to train it too would change nothing.
def _manhattan(w: Tensor, alpha: Tensor | None) -> Tensor:
    return manhattan(w, w.detach().abs().flatten(1).median(1).values if alpha is None else alpha)


def _euclidean(w: Tensor, alpha: Tensor | None) -> Tensor:
    return euclidean(w, w.detach().abs().flatten(1).mean(1) if alpha is None else alpha)


def oscillation(w: Tensor) -> Tensor:
    """mean | |w| - 1 |. Shapes: w any -> ()."""
    return (_magnitude(w) - 1).abs().mean()


def uncertainty(w: Tensor) -> Tensor:
    """mean p (1 - p) with p = sigmoid(w), of latents whose signs are random. Shapes: w any -> ()."""
    p = torch.sigmoid(w)
    return (p * (1 - p)).mean()


REGULARIZERS: Mapping[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "manhattan": _manhattan,
    "euclidean": _euclidean,
    "bipolar": lambda w, alpha: bipolar(w),
    "oscillation": lambda w, alpha: oscillation(w),
    "uncertainty": lambda w, alpha: uncertainty(w),
}


def _learned_alpha(layer: BinaryLayer, filters: int) -> Tensor | None:
    """The learned scale of a layer's filters, which starts at their size; None where it has none."""
    scale = layer.scale
    return scale.s if isinstance(scale, OutputScale) and scale.s.numel() == filters else None


def regularization(model: nn.Module, kind: str) -> Tensor:
    """The sum of one term over the weights of all layers that binarize them now; zero where there is none. Shape: ().

    Raises: UsageError for an unknown kind.
    """
    if kind not in REGULARIZERS:
        raise UsageError(
            f'no regularizer "{kind}" (known are {", ".join(REGULARIZERS)}){did_you_mean(kind, REGULARIZERS)}'
        )
    total = torch.zeros((), device=next(model.parameters()).device)
    for layer in model.modules():
        if isinstance(layer, BinaryLayer) and not isinstance(layer.weight_binarizer, nn.Identity):
            axis = getattr(layer.weight_binarizer, "axis", 0)
            weight = layer.real_weight().transpose(0, axis)
            total = total + REGULARIZERS[kind](weight, _learned_alpha(layer, len(weight))).to(total)
    return total
