"""Images that are read one by one: transformed with random numbers of their own; unreadable ones named and passed over."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, default_collate

from binarize.errors import SourceError
from binarize.training.data.seeds import seeded

__all__ = ["Batch", "Key", "Samples", "count"]


# What reading and decoding an image raises; PIL's own errors are among them.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
# A data set in which so many images in a row cannot be read is no data set.
_MOST_IN_A_ROW = 100


class Samples(Dataset[Any]):
    """Batches of a map-style data set whose items are (image, label), or images alone.

    `keys` are (epoch, index): all that is random in an item depends on them and the seed. An unreadable image is replaced by
    the next one that can be read, or left out of its batch where `replace` is False; the batch says which.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        transform: Callable[[Any], Any] | None = None,
        *,
        seed: int = 0,
        replace: bool = True,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        self.dataset, self.transform = dataset, transform
        self.seed, self.replace, self.collate = seed, replace, collate

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of some keys; its images are None where none of them can be read."""
        items: list[Any] = []
        problems: list[str] = []
        for epoch, index in keys:
            with seeded(self.seed, epoch, index):
                item = self._item(index, problems)
            if item is not None:
                items.append(item)
        if not items:
            return Batch(None, None, tuple(problems))
        return Batch.of(self.collate(items), tuple(problems))

    def _item(self, index: int, problems: list[str]) -> Any:
        most = min(_MOST_IN_A_ROW, len(self))
        for step in range(most if self.replace else 1):
            position = (index + step) % len(self)
            try:
                return self._transformed(self.dataset[position])
            except _UNREADABLE as error:
                problems.append(f"{self._name(position)}: {error or type(error).__name__}")
        if self.replace:
            which = f"none of the {most} images" if most == len(self) else f"none of {most} images in a row"
            raise SourceError(f"{which} can be read: {problems[-most]}")
        return None

    def _transformed(self, item: object) -> Any:
        if self.transform is None:
            return item
        if isinstance(item, (tuple, list)):
            return (self.transform(item[0]), *item[1:])
        return self.transform(item)

    def _name(self, index: int) -> str:
        name = getattr(self.dataset, "name", None)
        return str(name(index)) if callable(name) else f"image {index}"


# (epoch, index of the image).
Key = tuple[int, int]


class Batch(NamedTuple):
    """A batch. `images` is what the model takes; None where no image of the batch could be read."""

    images: Any
    labels: object = None
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, collated: object, unreadable: tuple[str, ...] = ()) -> Batch:
        """A batch of what a data set gives: images alone, or (images, labels)."""
        if isinstance(collated, (tuple, list)) and len(collated) == 2:
            return cls(collated[0], collated[1], unreadable)
        if isinstance(collated, (tuple, list)) and len(collated) == 1:
            return cls(collated[0], None, unreadable)
        return cls(collated, None, unreadable)


def count(images: object) -> int:
    """How many images a structure of tensors holds: the length of the first tensor in it."""
    tensors = [value for value in pytree.tree_leaves(images) if isinstance(value, Tensor)]
    return int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 0
