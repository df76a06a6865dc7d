"""Images in memory: sizes, normalization, shifts and mirrors by hand."""

from __future__ import annotations

import pytest
import torch

from binarize.training.data import Augment, Preprocessing
from binarize.training.data.tensors import TensorBatches, TensorImages, _shifted, augment_batch, to_size

GREY = Preprocessing((1, 4, 4), (0.5,), (0.5,))


def picture() -> torch.Tensor:
    return torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)


def test_a_shift_moves_pixels_and_brings_in_zeros() -> None:
    # From the corner (0, 0) of the picture padded by 1: everything moves down and right by 1.
    moved = _shifted(picture(), torch.tensor([[0, 0]]), 1)[0, 0]
    assert moved.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]
    stays = _shifted(picture(), torch.tensor([[1, 1]]), 1)
    assert torch.equal(stays, picture())
    left = _shifted(picture(), torch.tensor([[1, 2]]), 1)[0, 0]
    assert left[0].tolist() == [2, 3, 4, 0]


def test_each_image_of_a_batch_moves_on_its_own() -> None:
    images = picture().expand(2, 3, 4, 4)
    moved = _shifted(images, torch.tensor([[0, 1], [2, 1]]), 1)
    assert moved.shape == (2, 3, 4, 4)
    assert moved[0, 2, :, 0].tolist() == [0, 1, 5, 9]
    assert moved[1, 0, :, 0].tolist() == [5, 9, 13, 0]


def test_half_of_the_images_are_mirrored() -> None:
    images = picture().expand(400, 1, 4, 4)
    found = augment_batch(images, Augment.parse("flip"), range(400), 400, seed=0, epoch=0)
    mirrored = (found == images.flip(-1)).flatten(1).all(1)
    straight = (found == images).flatten(1).all(1)
    assert (mirrored | straight).all()
    # 400 fair coins: 200 +- 5 deviations of 10.
    assert 150 < int(mirrored.sum()) < 250


def test_no_augmentation_is_none() -> None:
    images = picture()
    assert augment_batch(images, Augment.parse("none"), [0], 1, 0, 0) is images


def test_uint8_is_scaled_and_normalized_and_floats_are_normalized() -> None:
    keys = [(0, 0)]
    white = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    labels = torch.zeros(1, dtype=torch.long)
    assert TensorBatches(TensorImages(white, labels), GREY).__getitems__(keys).images.unique().tolist() == [
        1.0
    ]
    black = TensorImages(torch.zeros(1, 1, 4, 4), labels)
    assert TensorBatches(black, GREY).__getitems__(keys).images.unique().tolist() == [-1.0]
    # Without a preprocessing they are what the model takes.
    assert TensorBatches(black).__getitems__(keys).images.unique().tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resizing_keeps_the_type_and_a_constant(dtype: torch.dtype) -> None:
    images = torch.full((2, 1, 4, 4), 7).to(dtype)
    found = to_size(images, (6, 5))
    assert found.dtype == dtype and found.shape == (2, 1, 6, 5)
    assert found.unique().tolist() == [7]
    assert to_size(images, (4, 4)) is images


def test_channels_are_repeated_or_mixed() -> None:
    colour = Preprocessing((3, 4, 4), (0.5,) * 3, (0.5,) * 3)
    grey = TensorImages(picture(), None)
    assert grey.fitted(colour).images.shape == (1, 3, 4, 4)
    rgb = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    rgb[:, 1] = 100
    assert TensorImages(rgb, None).fitted(GREY).images.unique().tolist() == [59]
