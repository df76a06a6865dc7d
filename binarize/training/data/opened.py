"""Images as a command opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from binarize.errors import UsageError
from binarize.inputs.arguments import Images
from binarize.inputs.batches import as_batches
from binarize.modules.modes import evaluating
from binarize.modules.outputs import class_dim, logits_of
from binarize.training.data import (
    Batch,
    ImageData,
    Preprocessing,
    evaluation_loader,
    open_data,
    preprocessing_of,
)
from binarize.training.data.image_data import limited
from binarize.training.data.kinds.made_up import is_made_up

__all__ = [
    "IMAGES",
    "image_batches",
    "needs_preprocessing",
    "on_device",
    "open_images",
    "opening",
    "output_classes",
]


# (C, H, W) of images for a model whose configuration says nothing.
USUAL_SIZE = (3, 224, 224)


def needs_preprocessing(data: object) -> bool:
    """Whether images of this data are not yet what the model takes."""
    if isinstance(data, ImageData):
        return not data.ready
    first = data[0] if isinstance(data, (tuple, list)) and data else data
    if isinstance(first, Tensor):
        return not first.is_floating_point()
    return not isinstance(data, (Dataset, DataLoader))


@torch.no_grad()
def output_classes(model: nn.Module, size: Sequence[int]) -> int:
    """How many classes the model tells apart, tried on a blank image (C, H, W). Raises UsageError for no class scores."""
    parameter = next(model.parameters())
    blank = torch.zeros(1, *size, dtype=parameter.dtype, device=parameter.device)
    with evaluating(model):
        logits = logits_of(model(blank))
    return int(logits.shape[class_dim(logits)])


def opening(
    model: nn.Module, data: object, preprocessing: Preprocessing | None, root: str | Path, download: bool
) -> dict[str, Any]:
    """How `open_data` is asked for images of this model; made-up ones have as many classes as it tells apart.

    Raises: UsageError, where the images are made up and the model gives no class scores.
    """
    size: Sequence[int] = preprocessing.size if preprocessing is not None else USUAL_SIZE
    options: dict[str, Any] = {"size": size, "root": root, "download": download}
    return {**options, "classes": output_classes(model, size)} if is_made_up(data) else options


# Images of named data that are looked at unless another number is asked for.
IMAGES = 2000


def open_images(
    model: nn.Module,
    data: object,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    *,
    root: str | Path = "data",
    download: bool = False,
    batch_size: int = 250,
    seed: int = 0,
) -> tuple[list[Images], ImageData, tuple[str, ...]]:
    """(batches as the model takes them, the data they are of, images that could not be read). Labels need not be there.

    Raises: UsageError where there are no images, or none can be read.
    """
    if preprocessing is None and needs_preprocessing(data):
        preprocessing = preprocessing_of(model)
    options = opening(model, data, preprocessing, root, download)
    opened = open_data(data, "train", labelled=False, **options)
    if opened is None:
        opened = open_data(data, "validation", labelled=False, **options)
    if opened is None:
        raise UsageError(f"data {data}: holds no images")
    opened = limited(opened, limit or IMAGES, seed)
    batches, unreadable = image_batches(opened, preprocessing, batch_size)
    if not batches:
        raise UsageError(
            f"data {opened.name}: none of its {len(unreadable)} images can be read: {unreadable[0]}"
        )
    return batches, opened, unreadable


def image_batches(
    data: ImageData, preprocessing: Preprocessing | None, batch_size: int
) -> tuple[list[Images], tuple[str, ...]]:
    """(every image of the data as the model takes it, in order, without labels; those that could not be read)."""
    unreadable: list[str] = []
    batches: list[Images] = []
    for item in evaluation_loader(data, preprocessing, batch_size=batch_size):
        batch = item if isinstance(item, Batch) else Batch.of(item)
        unreadable += batch.unreadable
        if batch.images is not None:
            batches += as_batches([batch.images])
    return batches, tuple(unreadable)


def on_device(model: nn.Module, images: Images) -> Images:
    """The images on the model's device."""
    parameter = next(model.parameters())
    result: Images = pytree.tree_map_only(Tensor, lambda t: t.to(parameter.device), images)
    return result
