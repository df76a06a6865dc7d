"""The order of batches, which follows from seed and epoch, and loaders of the user's own that are replayed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    Sampler,
)

from binarize.errors import UsageError
from binarize.training.data.samples import Batch, Key
from binarize.training.data.seeds import generator, seeded

__all__ = ["Order", "Position", "Replayed", "replayed"]


# (epoch, batches of it that are done) when an iteration begins.
Position = Callable[[], tuple[int, int]]


class Order(Sampler[list[Key]]):
    """Keys (epoch, index) of the batches of one epoch, from where the training stands, for one of `world` processes.

    Each epoch has its own permutation; a last incomplete batch is left out, unless there is no other.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        position: Position = lambda: (0, 0),
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
    ) -> None:
        self.count, self.batch_size, self.seed, self.position = count, batch_size, seed, position
        self.rank, self.world, self.shuffle = rank, world, shuffle

    def __len__(self) -> int:
        return max(1, self.count // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = self.position()
        order = torch.randperm(self.count, generator=generator(self.seed, epoch)) if self.shuffle else None
        step = self.batch_size * self.world
        for start in range(done * step, len(self) * step, step):
            chosen = (
                torch.arange(start, min(start + step, self.count))
                if order is None
                else order[start : start + step]
            )
            # Where the images do not go round, the last processes take some again.
            mine = chosen[self.rank :: self.world] if len(chosen) >= self.world else chosen
            yield [(epoch, index) for index in mine.tolist()]


class Replayed:
    """A loader of the user's own, made repeatable: seeded by epoch and batch, and read past what is done."""

    def __init__(self, loader: Any, seed: int, position: Position) -> None:
        self.loader, self.seed, self.position = loader, seed, position

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        epoch, done = self.position()
        with seeded(self.seed, epoch):
            batches = iter(self.loader)
        for number in range(len(self)):
            with seeded(self.seed, epoch, number):
                try:
                    found = next(batches)
                except StopIteration:
                    return
            if number >= done:
                yield found if isinstance(found, Batch) else Batch.of(found)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the position is the training's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def replayed(loader: Any, name: str, seed: int, position: Position, world: int) -> Replayed:
    if world > 1:
        raise UsageError(
            f"data {name}: with {world} processes give a map-style Dataset; a loader cannot be divided among them"
        )
    try:
        len(loader)
    except TypeError as error:
        raise UsageError(
            f"data {name}: its length is not known, so neither is that of the training; give it a __len__"
        ) from error
    return Replayed(loader, seed, position)
