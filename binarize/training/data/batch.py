"""What a loader gives: images, their labels, and what could not be read."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Batch", "Key", "count"]

# (epoch, index of the image).
Key = tuple[int, int]


class Batch(NamedTuple):
    """A batch. `images` is what the model takes; None where no image of the batch could be read."""

    images: Any
    labels: Any = None
    unreadable: tuple[str, ...] = ()

    @classmethod
    def of(cls, collated: Any, unreadable: tuple[str, ...] = ()) -> Batch:
        """A batch of what a data set gives: images alone, or (images, labels)."""
        if isinstance(collated, (tuple, list)) and len(collated) == 2:
            return cls(collated[0], collated[1], unreadable)
        if isinstance(collated, (tuple, list)) and len(collated) == 1:
            return cls(collated[0], None, unreadable)
        return cls(collated, None, unreadable)


def count(images: Any) -> int:
    """How many images a structure of tensors holds: the length of the first tensor in it."""
    tensors = [value for value in pytree.tree_leaves(images) if isinstance(value, Tensor)]
    return int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 0
