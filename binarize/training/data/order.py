"""The order of batches, which follows from seed and epoch, and loaders of the user's own that are replayed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import (
    Sampler,
)

from binarize.errors import UsageError
from binarize.training.data.samples import Batch, Key
from binarize.training.data.seeds import generator, seeded

__all__ = ["Order", "Position", "Replayed", "Stand", "replayed"]

# (epoch, batches of it that are done) when an iteration begins.
Position = Callable[[], tuple[int, int]]


def _beginning() -> tuple[int, int]:
    return 0, 0


@dataclass(frozen=True)
class Stand:
    """Where one process of a training stands: its seed, what is done already, and which one of `world` processes it is."""

    seed: int = 0
    position: Position = _beginning
    rank: int = 0
    world: int = 1


class Order(Sampler[list[Key]]):
    """Keys (epoch, index) of the batches of one epoch, from where the training stands, for one of its processes.

    Each epoch has its own permutation; a last incomplete batch is left out, unless there is no other.
    """

    def __init__(self, count: int, batch_size: int, stand: Stand, *, shuffle: bool = True) -> None:
        self.count, self.batch_size, self.stand, self.shuffle = count, batch_size, stand, shuffle

    def __len__(self) -> int:
        return max(1, self.count // (self.batch_size * self.stand.world))

    def __iter__(self) -> Iterator[list[Key]]:
        stand = self.stand
        epoch, done = stand.position()
        order = torch.randperm(self.count, generator=generator(stand.seed, epoch)) if self.shuffle else None
        step = self.batch_size * stand.world
        for start in range(done * step, len(self) * step, step):
            chosen = (
                torch.arange(start, min(start + step, self.count))
                if order is None
                else order[start : start + step]
            )
            # Where the images do not go round, the last processes take some again.
            mine = chosen[stand.rank :: stand.world] if len(chosen) >= stand.world else chosen
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


def replayed(loader: Any, name: str, stand: Stand) -> Replayed:
    """The loader, made repeatable. Raises: UsageError, where it has no length, or several processes would share it."""
    if stand.world > 1:
        raise UsageError(
            f"data {name}: with {stand.world} processes give a map-style Dataset; a loader cannot be divided among them"
        )
    try:
        len(loader)
    except TypeError as error:
        raise UsageError(
            f"data {name}: its length is not known, so neither is that of the training; give it a __len__"
        ) from error
    return Replayed(loader, stand.seed, stand.position)
