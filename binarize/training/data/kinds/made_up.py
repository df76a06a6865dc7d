"""Images that are made up: smooth patterns, one a class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from binarize.training.data.image_data import ImageData
from binarize.training.data.seeds import generator
from binarize.training.data.tensors import TensorImages, to_size

__all__ = ["FAKE_IMAGES", "is_made_up", "made_up"]

# Training images of "fake"; a quarter of that for validation.
FAKE_IMAGES = 256


def is_made_up(data: object) -> bool:
    """Whether this names images that are made up, as many classes of them as somebody asks for: "fake", "fake:256"."""
    word, _, count = data.partition(":") if isinstance(data, str) else ("", "", "")
    return word == "fake" and (not count or count.isdecimal())


def made_up(name: str, count: int, split: str, size: Sequence[int], classes: int) -> ImageData:
    """Each class a smooth pattern, each image that pattern with noise: learnable in a few steps, and no white noise."""
    channels, height, width = size
    patterns = torch.rand(classes, channels, 4, 4, generator=generator(0, classes))
    patterns = to_size(patterns, (height, width))
    draw = generator(1 if split == "train" else 2, count)
    labels = torch.randint(0, classes, (count,), generator=draw)
    noise = torch.rand(count, channels, height, width, generator=draw)
    images = ((0.75 * patterns[labels] + 0.25 * noise) * 255).round().to(torch.uint8)
    return ImageData(name, TensorImages(images, labels), tuple(f"pattern {i}" for i in range(classes)))
