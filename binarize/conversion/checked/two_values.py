"""Whether the binarizers of a converted model give two values: what makes a layer binary, whatever its rule says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from binarize.bernoulli.classes import is_soft
from binarize.layers.layer import BinaryLayer

__all__ = ["watched_values"]


@contextmanager
def watched_values(model: nn.Module) -> Iterator[list[str]]:
    """While the model runs on images: a warning for each binarizer that gives more than two values.

    Those of a weight are counted in each filter, those of an input in each channel. One value is no fault here: that
    depends on the images. An input binarizer of several bit planes gives two values in each plane. A warning and no
    failed check: to leave out one part of a scheme on purpose is an experiment that people make.
    """
    found: list[str] = []
    handles = []
    for name, layer in model.named_modules():
        # Means of signs are two-valued once they are hardened.
        if isinstance(layer, BinaryLayer) and not is_soft(layer):
            found += _of_weight(name, layer)
            if layer.input_binarizer is not None:
                handles.append(layer.register_forward_pre_hook(_watch(name, found)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _watch(name: str, found: list[str]) -> Any:
    def hook(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, BinaryLayer)
        binarizer = layer.input_binarizer
        assert binarizer is not None
        if int(getattr(binarizer, "bitplanes", 1)) > 1:
            return
        with torch.no_grad():
            values = layer.binarized_input(args[0])
        last = layer.kind == "linear" or values.dim() < 2
        by_channel = values.movedim(-1 if last else 1, 0).flatten(1)
        found.extend(_warning(name, "input_binarizer", binarizer, by_channel, "a channel of the example"))

    return hook


def _of_weight(name: str, layer: BinaryLayer) -> list[str]:
    if getattr(layer.weight_binarizer, "why_unpacked", None):
        return []  # asked for by name, and said again by what packs
    with torch.no_grad():
        values, _ = layer.binarized_weight()
    return _warning(name, "weight_binarizer", layer.weight_binarizer, layer.filters(values), "a filter")


def _warning(name: str, part: str, binarizer: nn.Module, rows: Tensor, row: str) -> list[str]:
    """A warning where a row has more than two values."""
    if not rows.numel():
        return []
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    wrong = ((rows != low) & (rows != high) & ~rows.isnan()).any(1)
    if not wrong.any():
        return []
    values = rows[int(wrong.nonzero()[0])].unique()
    some = ", ".join(f"{value:.4g}" for value in values[:3].tolist())
    what = f"{name}.{part} ({type(binarizer).__name__}) gives {len(values)} values in {row}: {some}, ..."
    return [f"{what}; a binary layer has two; name a binarizer of binarize.binarizers there"]
