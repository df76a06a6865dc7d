"""Whether a converted network still depends on its input: the signs that its binary layers read of given images.

A layer whose input has one sign everywhere computes a constant, and so does the whole network behind it. That is what
becomes of a network whose layers are binarized without a word about the ReLU in front of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.layers import BinaryLayer
from binarize.report.live import LiveShare

__all__ = [
    "Images",
    "arguments_of",
    "call",
    "evaluating",
    "looks_like_noise",
    "measure_liveness",
    "upper_values",
]

# Arguments of one forward call: positional, keyword.
Images = tuple[tuple[Any, ...], Mapping[str, Any]]

# Neighbouring pixels of photographs, drawings and scans correlate by 0.5 and more, those of white noise by 0.
_LEAST_CORRELATION = 0.25
# Fewer pixels along a side tell nothing.
_LEAST_SIDE = 4
# Of signals, tokens and tables, which need not correlate, so many numbers tell how they are distributed.
_LEAST_NUMBERS = 256
# Mean, variance, skewness and kurtosis.
_NORMAL, _UNIFORM = (0.0, 1.0, 0.0, 3.0), (0.5, 1 / 12, 0.0, 1.8)


@torch.no_grad()
def measure_liveness(model: nn.Module, batches: Sequence[Images]) -> dict[str, LiveShare]:
    """Per binary layer with binary inputs: the share of upper values, and of input channels that have one sign only.

    Channels are counted over all batches and positions. The model runs in evaluation mode.
    """
    upper: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(layer, BinaryLayer)
            bits = upper_values(layer, args[0])
            dim = getattr(layer, "in_features", None) is not None and bits.dim() > 2
            channels = bits.movedim(-1 if dim else min(1, bits.dim() - 1), 0).flatten(1)
            upper[name] = upper.get(name, 0) + channels.sum(1).double()
            count[name] = count.get(name, 0) + channels.shape[1]

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer) and layer.input_binarizer is not None
    ]
    try:
        with evaluating(model):
            for images in batches:
                call(model, images)
    finally:
        for handle in handles:
            handle.remove()
    shares = {}
    for name, ones in upper.items():
        constant = ((ones == 0) | (ones == count[name])).double().mean().item()
        shares[name] = LiveShare(ones.sum().item() / (count[name] * len(ones)), constant)
    return shares


def upper_values(layer: BinaryLayer, x: Tensor) -> Tensor:
    """Where the layer's binary input takes the upper of its two values (+1), as booleans in the shape of `x`."""
    # What the binarizer makes of very small and very large inputs are its two values, whatever the method.
    low, high = (layer.binarized_input(torch.full_like(x[:1], end)) for end in (-1e4, 1e4))
    values = layer.binarized_input(x)
    return (values - low).abs_() > (values - high).abs_()


def looks_like_noise(batches: Sequence[Images]) -> str | None:
    """Why these inputs are no images to calibrate on ("white noise", "constant"), None where they may be."""
    for args, kwargs in batches:
        for value in pytree.tree_leaves((args, dict(kwargs))):
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
                continue
            if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                return "constant"
            if value.dim() >= 4 and min(value.shape[-2:]) >= _LEAST_SIDE:
                if _correlation(value) < _LEAST_CORRELATION:
                    return "white noise: its neighbouring pixels do not correlate"
            elif value.numel() >= _LEAST_NUMBERS and _is_generated(value):
                return "white noise: its numbers are spread as those of a random generator"
    return None


def _is_generated(values: Tensor) -> bool:
    """Whether numbers have the first four moments of torch.randn's or torch.rand's, as far as so many can tell."""
    x = values.detach().double().flatten()
    root = math.sqrt(x.numel())
    mean, variance = x.mean().item(), x.var().item()
    if variance <= 0:
        return False
    standard = (x - mean) / math.sqrt(variance)
    skew, kurtosis = standard.pow(3).mean().item(), standard.pow(4).mean().item()
    # (mean, variance, kurtosis) of the distribution, and the standard errors of all four for one number.
    for wanted, errors in ((_NORMAL, (1.0, 1.42, 2.45, 4.9)), (_UNIFORM, (0.29, 0.075, 1.0, 1.0))):
        found = (mean, variance, skew, kurtosis)
        if all(abs(f - w) < 5 * error / root for f, w, error in zip(found, wanted, errors)):
            return True
    return False


def _correlation(images: Tensor) -> float:
    """The larger of the horizontal and vertical correlations between neighbouring pixels."""
    x = images.detach().double()
    x = x - x.mean((-2, -1), keepdim=True)
    variance = x.square().mean().clamp_min(1e-30)
    across = (x[..., 1:] * x[..., :-1]).mean() / variance
    down = (x[..., 1:, :] * x[..., :-1, :]).mean() / variance
    return max(across.item(), down.item())


def arguments_of(example: Any) -> Images:
    """An example as arguments of one forward call: a tensor, a tuple of arguments, a dict of keyword arguments, or both.

    Both is `((x, y), {"mask": mask})`: a tuple of exactly a tuple and a dict. Raises: UsageError, where it is none.
    """
    if isinstance(example, tuple) and len(example) == 2 and isinstance(example[0], tuple):
        args, kwargs = example
        if isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs):
            return args, dict(kwargs)
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (list, tuple)):
        return tuple(example), {}
    raise UsageError(f"example_input is a {type(example).__name__}; expected a tensor, a tuple or a dict")


def call(model: nn.Module, images: Images) -> Any:
    """Run the model on one batch."""
    args, kwargs = images
    return model(*args, **kwargs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode again afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
