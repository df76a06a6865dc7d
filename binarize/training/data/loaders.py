"""Loaders that can begin anywhere: the order of the images and all that is random in them follow from seed, epoch and image.

So a training that was interrupted goes on with the very batches it would have had, and several processes together see
the batches that one would. A loader of the user's own is replayed: seeded anew for each epoch, and read past what is done.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from binarize.errors import UsageError
from binarize.inputs.seen import Preprocessing
from binarize.training.data.augment import Augment, training_transform
from binarize.training.data.image_data import ImageData
from binarize.training.data.order import Order, Replayed, Stand, replayed
from binarize.training.data.preprocessing import evaluation_transform
from binarize.training.data.samples import Batch, Samples
from binarize.training.data.tensors import TensorBatches, TensorImages

__all__ = ["Batch", "evaluation_loader", "training_loader"]

# A training of one process, at its beginning.
_ALONE = Stand()


class _Loader(DataLoader[Batch]):
    """A loader with the two methods by which pytorch-lightning knows that it can begin in the middle of an epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is the training's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def training_loader(
    data: ImageData,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    augment: Augment | None = None,
    stand: Stand = _ALONE,
    workers: int = 0,
) -> DataLoader[Batch] | Replayed:
    """Shuffled batches of one process, from where the training stands.

    `batch_size` is that of one process; a loader of the user's own keeps its own. Raises: UsageError.
    """
    dataset, collate, shuffle = data.dataset, default_collate, True
    if isinstance(dataset, DataLoader):
        plain = (
            isinstance(dataset.sampler, (RandomSampler, SequentialSampler)) and dataset.batch_size is not None
        )
        if isinstance(dataset.dataset, IterableDataset) or not plain:
            return replayed(dataset, data.name, stand)
        shuffle, collate = isinstance(dataset.sampler, RandomSampler), dataset.collate_fn
        batch_size, workers, dataset = dataset.batch_size or batch_size, dataset.num_workers, dataset.dataset
        data = replace(data, dataset=dataset)
    if isinstance(dataset, IterableDataset):
        transform = (
            None
            if preprocessing is None or data.ready
            else training_transform(preprocessing, augment or Augment.usual(preprocessing))
        )
        loader = DataLoader(
            _Transformed(dataset, transform),
            batch_size,
            num_workers=workers,
            drop_last=True,
            worker_init_fn=_calm,
        )
        return replayed(loader, data.name, stand)
    if not len(data):
        raise UsageError(f"data {data.name} holds no image")
    prepared = _prepared(data, preprocessing, augment, stand.seed, training=True, collate=collate)
    order = Order(len(data), batch_size, stand, shuffle=shuffle)
    return _Loader(
        prepared,
        batch_sampler=order,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=_pin(),
        worker_init_fn=_calm,
    )


def evaluation_loader(
    data: ImageData,
    preprocessing: Preprocessing | None,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> DataLoader[Batch]:
    """Every image once, in order, as the model takes it; with several processes each has its share. Raises: UsageError."""
    dataset, collate = data.dataset, default_collate
    if isinstance(dataset, DataLoader):
        batch_size, collate = dataset.batch_size or batch_size, dataset.collate_fn
        if isinstance(dataset.dataset, IterableDataset):
            return dataset
        workers, data = dataset.num_workers, replace(data, dataset=dataset.dataset)
    elif isinstance(dataset, IterableDataset):
        transform = None if preprocessing is None or data.ready else evaluation_transform(preprocessing)
        return DataLoader(
            _Transformed(dataset, transform), batch_size, num_workers=workers, worker_init_fn=_calm
        )
    if not len(data):
        raise UsageError(f"data {data.name} holds no image")
    prepared = _prepared(data, preprocessing, None, 0, training=False, collate=collate)
    keys = [(0, index) for index in range(rank, len(data), world)]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return DataLoader(
        prepared,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=_pin(),
        worker_init_fn=_calm,
    )


def _prepared(
    data: ImageData,
    preprocessing: Preprocessing | None,
    augment: Augment | None,
    seed: int,
    *,
    training: bool,
    collate: Callable[[list[Any]], Any],
) -> Dataset[Batch]:
    """The data set as batches of keys, images as the model takes them."""
    dataset = data.dataset
    assert isinstance(dataset, Dataset)
    if data.ready or preprocessing is None:
        if isinstance(dataset, TensorImages):
            return TensorBatches(dataset)
        return Samples(dataset, seed=seed, replace=training, collate=collate)
    if training and augment is None:
        augment = Augment.usual(preprocessing)
    if isinstance(dataset, TensorImages) and not (augment is not None and augment.needs_images):
        return TensorBatches(dataset, preprocessing, augment if training else None, seed)
    if isinstance(dataset, TensorImages):
        dataset = _AsPictures(dataset)
    transform = (
        training_transform(preprocessing, augment)
        if augment is not None
        else evaluation_transform(preprocessing)
    )
    return Samples(dataset, transform, seed=seed, replace=training, collate=collate)


# How long a worker lives on after SIGTERM, in which the training ends its step and saves.
_GRACE = 60.0


def _calm(worker: int) -> None:
    """Signals reach every process of a terminal or a job: the training decides what becomes of it, and ends its workers.

    SIGTERM may also come from the training to a worker that does not answer, so that it is put off, not ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.setitimer(signal.ITIMER_REAL, _GRACE))


def _as_it_is(batch: object) -> Any:
    return batch


def _pin() -> bool:
    return torch.cuda.is_available()


class _Transformed(IterableDataset[Any]):
    """(image, label) of an iterable, the image transformed."""

    def __init__(self, dataset: IterableDataset[Any], transform: Callable[[Any], Any] | None) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for image, label in self.dataset:
            yield (image if self.transform is None else self.transform(image)), label


class _AsPictures(Dataset[Any]):
    """Tensors as PIL images, for augmentations that work on those."""

    def __init__(self, data: TensorImages) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        from torchvision.transforms.functional import to_pil_image

        image, label = self.data[index]
        return (to_pil_image(image), label) if label is not None else (to_pil_image(image),)  # type: ignore[return-value]
