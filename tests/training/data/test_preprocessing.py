"""Preprocessing comes from the model's configuration, and from nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import binarize
from binarize.demo.digits import trained_vgg
from binarize.errors import UsageError
from binarize.training.data import preprocessing_of


def test_timm_models_bring_their_own() -> None:
    import timm

    found = preprocessing_of(timm.create_model("mobilenetv3_small_050.lamb_in1k"))
    assert (found.size, found.crop, found.interpolation) == ((3, 224, 224), 0.875, "bicubic")
    assert found.mean == (0.485, 0.456, 0.406)
    grey = preprocessing_of(timm.create_model("mobilenetv3_small_050", in_chans=1))
    assert grey.size[0] == 1 and grey.mean == (pytest.approx(0.449),)


def test_torchvision_models_have_that_of_imagenet_in_the_size_they_were_converted_with() -> None:
    import torchvision

    model = torchvision.models.mobilenet_v3_small(num_classes=10)
    assert preprocessing_of(model).size == (3, 224, 224)
    assert preprocessing_of(model).crop == 0.875
    binary = binarize.convert(model, "bireal", input_shape=(1, 3, 64, 64))
    found = preprocessing_of(binary)
    assert (found.size, found.crop, found.mean) == ((3, 64, 64), 1.0, (0.485, 0.456, 0.406))


def test_other_models_go_by_their_first_layer() -> None:
    found = preprocessing_of(trained_vgg())
    assert (found.size, found.mean, found.std, found.crop) == ((1, 8, 8), (0.5,), (0.5,), 1.0)


def test_given_numbers_override() -> None:
    found = preprocessing_of(trained_vgg(), mean=[0.286], std=[0.353])
    assert (found.mean, found.std) == ((0.286,), (0.353,))
    assert preprocessing_of(trained_vgg(), size=(1, 16, 16)).size == (1, 16, 16)
    assert "as given" in found.origin
    with pytest.raises(UsageError, match="mean has 3 numbers; the model takes 1 channels"):
        preprocessing_of(trained_vgg(), mean=[0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="expected positive"):
        preprocessing_of(trained_vgg(), std=[0.0])


def test_a_model_whose_size_nobody_knows_is_refused() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(UsageError, match="the size of this model's images is not known"):
        preprocessing_of(Strange())
