"""Data in every form that a loader has, as arguments of forward calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.inputs.arguments import Images

__all__ = ["as_batches", "count", "images_at", "spread_images"]


def as_batches(data: Tensor | Iterable[Any], taken: int | None = None) -> list[Images]:
    """Batches as arguments of a forward call.

    A batch may be a tensor, (images, labels) with labels ignored, a tuple of arguments wrapped in another tuple, or a
    dict of keyword arguments. `taken` is how many positional arguments the model takes, where that is known: what
    comes behind them is no argument, and whole numbers among them are. Raises: UsageError for empty data.
    """
    batches = [data] if isinstance(data, (Tensor, dict)) else list(data)
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) for item in data):
        batches = [data]
    found = [_arguments(batch, taken) for batch in batches]
    if not found or any(count(images) == 0 for images in found):
        raise UsageError("there is no calibration data: expected a batch of images, or several")
    return found


def _arguments(batch: object, taken: int | None) -> Images:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, dict):
        return (), batch
    if isinstance(batch, (list, tuple)) and batch:
        first, *rest = batch
        if isinstance(first, (list, tuple)):
            return tuple(first), {}
        if taken is not None and 1 < taken <= len(batch):
            return tuple(batch[:taken]), {}
        # (images, labels): labels are integers, and no model takes them.
        if (
            rest
            and isinstance(rest[0], Tensor)
            and not rest[0].is_floating_point()
            and first.is_floating_point()
        ):
            return (first,), {}
        return tuple(batch), {}
    raise UsageError(f"a calibration batch is a {type(batch).__name__}; expected a tensor, a tuple or a dict")


def count(images: Images) -> int:
    """How many images a batch holds."""
    args, kwargs = images
    tensors = [value for value in pytree.tree_leaves((args, dict(kwargs))) if isinstance(value, Tensor)]
    return int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 0


def spread_images(batches: Sequence[Images], most: int) -> Images:
    """At most `most` images of all batches, evenly spaced, as one batch; of the first alone where they cannot be joined.

    Data often come in an order, of classes or of scenes: the first images would be of one kind.
    """
    sizes = [count(images) for images in batches]
    total = sum(sizes)
    few = min(most, total)
    places = torch.arange(few) * total // max(few, 1)
    chosen, start = [], 0
    for images, size in zip(batches, sizes):
        inside = places[(places >= start) & (places < start + size)] - start
        start += size
        if len(inside):
            chosen.append(images if len(inside) == size else images_at(images, inside))
    if len(chosen) == 1:
        return chosen[0]
    leaves = [pytree.tree_flatten(images)[0] for images in chosen]
    spec = pytree.tree_flatten(chosen[0])[1]
    # What is no tensor with an axis of images (a scale, a flag), and images of several sizes, cannot be joined.
    joined = []
    for column in zip(*leaves, strict=True):
        tensors = all(isinstance(value, Tensor) and value.dim() > 0 for value in column)
        if tensors and len({value.shape[1:] for value in column}) == 1:
            joined.append(torch.cat(column))
        elif tensors:
            return spread_images(batches[:1], most)
        else:
            joined.append(column[0])
    result: Images = pytree.tree_unflatten(joined, spec)
    return result


def images_at(images: Images, places: Tensor) -> Images:
    """These images of a batch."""
    size = count(images)
    result: Images = pytree.tree_map_only(
        Tensor, lambda t: t[places.to(t.device)] if t.dim() and t.shape[0] == size else t, images
    )
    return result
