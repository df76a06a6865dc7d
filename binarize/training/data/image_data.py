"""One split of a data set: images before anything is done to them, and parts of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from binarize.errors import UsageError
from binarize.training.data.kinds.folders import FolderImages
from binarize.training.data.seeds import generator
from binarize.training.data.tensors import TensorImages

__all__ = ["ImageData", "class_names_of", "divided", "limited", "numbered", "without_empty_classes"]


@dataclass(frozen=True)
class ImageData:
    """One split of a data set, before anything is done to its images."""

    name: str
    # Map-style: items are (image, label). Or a loader or an iterable of the user's own.
    dataset: Dataset[Any] | DataLoader[Any]
    classes: tuple[str, ...] = ()
    # Whether the images are what the model takes; else they are preprocessed.
    ready: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)
    # Whether it is what results are reported on: nothing should be chosen by it.
    is_test: bool = False
    # Whether it has a name that opens it again.
    by_name: bool = False
    # Whether it has labels, as far as its folders tell.
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


def numbered(data: ImageData, classes: Sequence[str]) -> ImageData:
    """The same images with classes numbered as in the list; other data than a folder, or without a list, as it is.

    Raises: UsageError, where the folder has a class that is not in the list.
    """
    if not isinstance(data.dataset, FolderImages) or not classes or data.classes == tuple(classes):
        return data
    data.dataset.number_as(classes)
    return replace(data, classes=data.dataset.classes)


def without_empty_classes(data: ImageData, outputs: Callable[[], int]) -> ImageData:
    """A folder without class folders that hold no image, where a model has one output for each of the others."""
    files = data.dataset
    if not isinstance(files, FolderImages) or not files.empty:
        return data
    if len(files.classes) - len(files.empty) != outputs():
        return data
    return numbered(data, [name for name in files.classes if name not in files.empty])


def class_names_of(dataset: object) -> tuple[str, ...]:
    source = dataset.dataset if isinstance(dataset, (DataLoader, Subset)) else dataset
    names = getattr(source, "classes", None)
    return tuple(str(name) for name in names) if isinstance(names, (list, tuple)) else ()


def limited(data: ImageData, count: int | None, seed: int = 0) -> ImageData:
    """Only so many images, the same for the same seed; all of them for None."""
    if count is None or count >= len(data):
        return data
    return _chosen(data, _permutation(len(data), seed)[:count])


def divided(data: ImageData, share: float, seed: int = 0) -> tuple[ImageData, ImageData]:
    """(the rest, a share) of the images, drawn at random and the same for the same seed.

    Raises: UsageError where nothing would be left on one side.
    """
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise UsageError(
            f"a validation share of {share:g} of {len(data)} images is {count}; both parts need some"
        )
    order = _permutation(len(data), seed)
    return _chosen(data, order[count:]), _chosen(data, order[:count])


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, count))


def _chosen(data: ImageData, indices: Tensor) -> ImageData:
    dataset = data.dataset
    if isinstance(dataset, TensorImages):
        labels = None if dataset.labels is None else dataset.labels[indices]
        return replace(data, dataset=TensorImages(dataset.images[indices], labels))
    if isinstance(dataset, (DataLoader, IterableDataset)):
        raise UsageError(f"data {data.name} cannot be divided: give a map-style Dataset rather than a loader")
    return replace(data, dataset=_Named(dataset, indices.tolist()))


class _Named(Subset[Any]):
    """A subset that still knows the files of its images."""

    def name(self, index: int) -> str:
        """The name of an image, where the data set has names."""
        own = getattr(self.dataset, "name", None)
        position = self.indices[index]
        return str(own(position)) if callable(own) else f"image {position}"
