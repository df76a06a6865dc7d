"""Augmentations as words, and the transforms they become."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from binarize.errors import UsageError
from binarize.training.data import Augment, Preprocessing
from binarize.training.data.augment import training_transform
from binarize.training.data.preprocessing import evaluation_transform
from binarize.training.data.seeds import seeded

SMALL = Preprocessing((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
LARGE = Preprocessing((3, 128, 96), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("none", Augment()),
        ("shift", Augment(shift=None)),
        ("shift4+flip", Augment(shift=4, flip=True)),
        ("crop+rand-m9-mstd0.5", Augment(crop=True, policy="rand-m9-mstd0.5")),
        ("crop + flip + erase", Augment(crop=True, flip=True, erase=0.25)),
        ("erase0.5", Augment(erase=0.5)),
    ],
)
def test_words(text: str, wanted: Augment) -> None:
    assert Augment.parse(text) == wanted


@pytest.mark.parametrize(
    "text, hint",
    [("shfit", 'did you mean "shift"?'), ("flip3", ""), ("randaug", ""), ("erase2", ""), ("", "")],
)
def test_unknown_words_are_named(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Augment.parse(text)
    assert f'"{text}"' in str(caught.value) and hint in str(caught.value)


def test_more_is_added_to_the_usual_ones() -> None:
    assert Augment.parse("usual", LARGE) == Augment.usual(LARGE)
    assert Augment.parse("usual+rand-m9", SMALL) == Augment(shift=None, flip=True, policy="rand-m9")
    with pytest.raises(UsageError, match='"rnad-m9"'):
        Augment.parse("usual+rnad-m9", SMALL)


def test_usual_ones_follow_the_size_and_the_colours() -> None:
    assert Augment.usual(SMALL) == Augment(shift=None, flip=True)
    assert Augment.usual(Preprocessing((1, 28, 28), (0.5,), (0.5,))) == Augment(shift=None)
    assert Augment.usual(LARGE) == Augment(crop=True, flip=True)
    assert [Augment(shift=None).pixels(side) for side in (8, 28, 32)] == [1, 3, 3]


@pytest.mark.parametrize(
    "text", ["none", "shift+flip", "crop+flip", "crop+rand-m9-n1", "shift+rand-m5", "augmix-m3", "erase1"]
)
@pytest.mark.parametrize("preprocessing", [SMALL, LARGE], ids=["small", "large"])
def test_a_training_image_has_the_models_size_and_depends_on_the_seed(
    text: str, preprocessing: Preprocessing
) -> None:
    image = Image.radial_gradient("L").convert("RGB").resize((90, 150))
    transform = training_transform(preprocessing, Augment.parse(text))
    found = []
    for seed in (1, 1, 2, 3, 4, 5):
        with seeded(seed):
            found.append(transform(image))
    assert all(tensor.shape == preprocessing.size for tensor in found)
    assert torch.equal(found[0], found[1])
    assert all(torch.equal(found[0], tensor) for tensor in found) is (text == "none")


def test_a_grey_image_is_augmented_too() -> None:
    preprocessing = Preprocessing((1, 28, 28), (0.5,), (0.5,))
    transform = training_transform(preprocessing, Augment.parse("shift+flip"))
    assert transform(Image.radial_gradient("L")).shape == (1, 28, 28)


def test_evaluation_resizes_and_cuts_the_middle() -> None:
    white = Image.new("RGB", (300, 200), "white")
    found = evaluation_transform(LARGE)(white)
    assert found.shape == (3, 128, 96)
    wanted = [(1 - mean) / std for mean, std in zip(LARGE.mean, LARGE.std)]
    torch.testing.assert_close(found.mean((1, 2)), torch.tensor(wanted), rtol=1e-5, atol=1e-5)
