"""The order of images: every image once an epoch, the same for one process or several, and from any point on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from binarize.errors import UsageError
from binarize.training.data import Augment, evaluation_loader, open_data, preprocessing_of, training_loader
from binarize.training.data.order import Order, Replayed, Stand
from binarize.training.data.seeds import seed_of, seeded


def at(epoch: int, done: int = 0) -> Callable[[], tuple[int, int]]:
    return lambda: (epoch, done)


@pytest.mark.parametrize("count, batch", [(20, 5), (23, 5), (3, 5), (5, 5)])
def test_every_epoch_has_each_image_at_most_once(count: int, batch: int) -> None:
    epochs = [[i for keys in Order(count, batch, Stand(position=at(e))) for _, i in keys] for e in range(2)]
    for indices in epochs:
        assert len(set(indices)) == len(indices) == max(1, count // batch) * min(batch, count)
        assert set(indices) <= set(range(count))
    assert count == 3 or epochs[0] != epochs[1]


@pytest.mark.parametrize("done", [0, 1, 3])
def test_an_order_can_begin_anywhere(done: int) -> None:
    whole = list(Order(23, 5, Stand(seed=7, position=at(2))))
    assert list(Order(23, 5, Stand(seed=7, position=at(2, done)))) == whole[done:]


def test_processes_together_see_what_one_would() -> None:
    single = list(Order(24, 6, Stand(position=at(1))))
    double = [list(Order(24, 3, Stand(position=at(1), rank=rank, world=2))) for rank in (0, 1)]
    for batch, first, second in zip(single, *double, strict=True):
        assert sorted(first + second) == sorted(batch)
        assert len(first) == len(second) == 3


def test_another_seed_is_another_order() -> None:
    assert list(Order(20, 5, Stand(seed=0))) != list(Order(20, 5, Stand(seed=1)))
    assert len({seed_of(0, 1), seed_of(1, 0), seed_of(0, 1, 0), seed_of(0)}) == 4


def test_seeded_gives_the_generators_back() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded(5, 6):
        inside = random.random(), np.random.rand(), torch.rand(1).item()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted
    with seeded(5, 6):
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == inside


class Noisy(Dataset[Any]):
    """Items that draw from every generator that an augmentation may draw from."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(1).item()]), index


def rows(loader: Any) -> list[list[float]]:
    return [row for batch in loader for row in batch.images.tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_random_in_an_item_depends_on_epoch_and_item_alone(workers: int) -> None:
    data = open_data(Noisy())
    assert data is not None

    def load(epoch: int, done: int, rank: int = 0, world: int = 1) -> list[list[float]]:
        return rows(
            training_loader(
                data,
                None,
                batch_size=4 // world,
                stand=Stand(position=at(epoch, done), rank=rank, world=world),
                workers=workers,
            )
        )

    torch.manual_seed(0)
    whole = load(1, 0)
    torch.manual_seed(99)
    assert load(1, 1) == whole[4:]
    if workers == 0:
        assert sorted(load(1, 0, 0, 2) + load(1, 0, 1, 2)) == sorted(whole)
        assert sorted(load(2, 0)) != sorted(whole)


def test_a_plain_loader_of_the_users_is_taken_apart_and_keeps_its_settings() -> None:
    images = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    shuffled, ordered = DataLoader(images, 2, shuffle=True), DataLoader(images, 2)
    for loader, wanted in ((shuffled, False), (ordered, True)):
        data = open_data(loader)
        assert data is not None
        found = [row[0] for row in rows(training_loader(data, None, batch_size=99))]
        assert sorted(found) == list(range(10))
        assert (found == list(range(10))) is wanted


def test_a_loader_with_its_own_sampler_is_replayed() -> None:
    images = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    loader = DataLoader(images, 2, sampler=WeightedRandomSampler([1.0] * 10, 10))
    data = open_data(loader)
    assert data is not None

    def load(epoch: int, done: int) -> list[list[float]]:
        found = training_loader(data, None, batch_size=99, stand=Stand(position=at(epoch, done)))
        assert isinstance(found, Replayed) and len(found) == 5
        return rows(found)

    assert load(0, 2) == load(0, 0)[4:]
    assert load(0, 0) != load(1, 0)
    with pytest.raises(UsageError, match="with 2 processes give a map-style Dataset"):
        training_loader(data, None, batch_size=2, stand=Stand(world=2))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        while True:
            yield torch.zeros(1), 0


def test_a_loader_without_a_length_is_refused() -> None:
    data = open_data(DataLoader(Endless(), 2))
    assert data is not None
    with pytest.raises(UsageError, match="its length is not known"):
        training_loader(data, None, batch_size=2)


@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_sees_every_image_once_in_order(world: int) -> None:
    data = open_data((torch.arange(10.0)[:, None], torch.arange(10)))
    assert data is not None
    found = []
    for rank in range(world):
        loader = evaluation_loader(data, None, batch_size=3, rank=rank, world=world)
        labels = [label for batch in loader for label in batch.labels.tolist()]
        assert labels == sorted(labels)
        found += labels
    assert sorted(found) == list(range(10))


def test_batches_of_tensors_are_augmented_alike_whatever_the_batch() -> None:
    from binarize.demo.digits import trained_vgg

    data, preprocessing = open_data("digits"), preprocessing_of(trained_vgg())
    assert data is not None
    augment = Augment.parse("shift2+flip")

    def load(batch_size: int) -> dict[tuple[int, ...], int]:
        loader = training_loader(
            data, preprocessing, batch_size=batch_size, augment=augment, stand=Stand(position=at(3))
        )
        batches = list(loader)[:4]
        return {tuple(image.flatten().tolist()): 1 for batch in batches for image in batch.images}

    small, large = load(8), load(32)
    assert small.keys() <= large.keys()
