"""Data in every form that a loader has, as arguments of forward calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from binarize.errors import UsageError
from binarize.liveness import Images

__all__ = ["as_batches", "count", "first_images"]


def as_batches(data: Tensor | Iterable[Any]) -> list[Images]:
    """Batches as arguments of a forward call.

    A batch may be a tensor, (images, labels) with labels ignored, a tuple of arguments wrapped in another tuple, or a
    dict of keyword arguments. Raises: UsageError for empty data.
    """
    batches = [data] if isinstance(data, (Tensor, dict)) else list(data)
    if isinstance(data, tuple) and data and all(isinstance(item, Tensor) for item in data):
        batches = [data]
    found = [_arguments(batch) for batch in batches]
    if not found or any(count(images) == 0 for images in found):
        raise UsageError("there is no calibration data: expected a batch of images, or several")
    return found


def _arguments(batch: Any) -> Images:
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, dict):
        return (), batch
    if isinstance(batch, (list, tuple)) and batch:
        first, *rest = batch
        if isinstance(first, (list, tuple)):
            return tuple(first), {}
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


def first_images(batches: Sequence[Images], most: int) -> Images:
    """The first `most` images of all batches as one batch; the first batch alone where batches cannot be joined."""
    chosen = []
    left = most
    for images in batches:
        if left <= 0:
            break
        chosen.append(_part(images, left))
        left -= count(images)
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
            return chosen[0]
        else:
            joined.append(column[0])
    result: Images = pytree.tree_unflatten(joined, spec)
    return result


def _part(images: Images, most: int) -> Images:
    size = count(images)
    if size <= most:
        return images
    result: Images = pytree.tree_map_only(
        Tensor, lambda t: t[:most] if t.dim() and t.shape[0] == size else t, images
    )
    return result
