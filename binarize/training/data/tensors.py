"""Images that lie in memory as one tensor: a batch is cut out, moved, mirrored and normalized at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from binarize.inputs.seen import Preprocessing
from binarize.training.data.augment import Augment
from binarize.training.data.samples import Batch, Key
from binarize.training.data.seeds import generator

__all__ = ["TensorBatches", "TensorImages", "augment_batch", "normalized", "to_size"]


@dataclass
class TensorImages(Dataset[tuple[Tensor, Tensor]]):
    """Images (N, C, H, W), uint8 in 0..255 or floating in 0..1, and labels (N,) or (N, ...)."""

    images: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return self.images[index], None if self.labels is None else self.labels[index]

    def fitted(self, preprocessing: Preprocessing) -> TensorImages:
        """The same images in the size and number of channels that the model takes."""
        channels, *size = preprocessing.size
        images = to_size(self.images, (size[0], size[1]))
        if images.shape[1] == 1 and channels > 1:
            images = images.expand(-1, channels, -1, -1)
        elif images.shape[1] != channels:
            images = _grey(images) if channels == 1 else images
        return TensorImages(images, self.labels)


def to_size(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images resized (bilinear, antialiased) where they have another size, in their own type.

    Shapes: (N, C, H, W) -> (N, C, *size).
    """
    if tuple(images.shape[-2:]) == size:
        return images
    # In parts: the floating copy of all would be four times the data.
    parts = [
        F.interpolate(part.float(), size, mode="bilinear", antialias=True, align_corners=False)
        for part in images.split(4096)
    ]
    if images.is_floating_point():
        return torch.cat(parts).to(images.dtype)
    return torch.cat([part.round_().clamp_(0, 255).to(images.dtype) for part in parts])


def _grey(images: Tensor) -> Tensor:
    """Luma of RGB images, one channel."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (images.float() * weights).sum(1, keepdim=True)
    return grey.to(images.dtype) if images.is_floating_point() else grey.round_().to(images.dtype)


def normalized(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x - mean) / std for each channel; whole numbers are taken as 0 to 255, and divided by 255 first.

    Shapes: (N, C, H, W) -> the same, float32 where the images are whole numbers.
    """
    mean = torch.tensor(preprocessing.mean).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, -1, 1, 1)
    scaled = images if images.is_floating_point() else images.float() / 255
    return (scaled - mean) / std


class TensorBatches(Dataset[Batch]):
    """Batches cut out of tensors; without a preprocessing the images are what the model takes already."""

    def __init__(
        self,
        data: TensorImages,
        preprocessing: Preprocessing | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.data = data if preprocessing is None else data.fitted(preprocessing)
        self.preprocessing, self.augment, self.seed = preprocessing, augment, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of some keys (epoch, index), all of one epoch."""
        epoch, indices = keys[0][0], [index for _, index in keys]
        images = self.data.images[torch.as_tensor(indices)]
        if self.augment is not None:
            images = augment_batch(images, self.augment, indices, len(self.data), self.seed, epoch)
        if self.preprocessing is not None:
            images = normalized(images, self.preprocessing)
        labels = self.data.labels
        return Batch(images, None if labels is None else labels[torch.as_tensor(indices)])


def augment_batch(
    images: Tensor, augment: Augment, indices: Sequence[int], count: int, seed: int, epoch: int
) -> Tensor:
    """Images shifted and mirrored. What happens to one depends on the seed, the epoch and its index, of `count`.

    Shapes: (B, C, H, W) -> same. The rim that a shift brings in is 0.
    """
    chosen = torch.as_tensor(indices)
    reach = augment.pixels(min(images.shape[-2:]))
    moves, mirrored = _drawn(reach, augment.flip, count, seed, epoch)
    if moves is not None:
        images = _shifted(images, moves[chosen], reach)
    if mirrored is not None:
        images = torch.where(mirrored[chosen].view(-1, 1, 1, 1), images.flip(-1), images)
    return images


@lru_cache(maxsize=2)
def _drawn(reach: int, flip: bool, count: int, seed: int, epoch: int) -> tuple[Tensor | None, Tensor | None]:
    """(moves (count, 2), whether mirrored (count,)) of all images in an epoch; every batch of it takes its own of them."""
    draw = generator(seed, epoch)
    moves = torch.randint(0, 2 * reach + 1, (count, 2), generator=draw) if reach else None
    return moves, torch.rand(count, generator=draw) < 0.5 if flip else None


def _shifted(images: Tensor, moves: Tensor, reach: int) -> Tensor:
    """Each image cut out of its padded self at its own place, `moves` (B, 2) from the upper left corner."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (reach, reach, reach, reach))
    # (B, C, places down, places to the right, H, W): every cut-out, as a view.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images)), :, moves[:, 0], moves[:, 1]]
