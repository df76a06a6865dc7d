"""What is done to training images, written as words joined by "+": "shift+flip", "crop+flip+rand-m9-mstd0.5".

usual    what fits the size and the colours of the model's images; "usual+rand-m9" adds to it
none     nothing
shift    moved by up to a tenth of the side; shift4: by up to 4 pixels
flip     mirrored left to right, every other image
crop     a random part of 8 % to 100 % of the area, resized (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842)
erase    a random rectangle blanked in a quarter of the images; erase0.5: in half of them
rand-... augmix-... original v0   a policy of timm.data.auto_augment (Cubuk et al., 2020,
                                  https://arxiv.org/abs/1909.13719)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from binarize.errors import UsageError, did_you_mean
from binarize.inputs.seen import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Augment", "training_transform"]

_WORDS = ("none", "shift", "flip", "crop", "erase")
_POLICY = re.compile(r"(rand|augmix|original|originalr|v0|v0r|3a)(-.*)?")
_SHIFT_SHARE = 10


@dataclass(frozen=True)
class Augment:
    """The parts of an augmentation."""

    # Pixels in every direction; None: a tenth of the side.
    shift: int | None = 0
    flip: bool = False
    crop: bool = False
    erase: float = 0.0
    policy: str | None = None

    @classmethod
    def parse(cls, text: str, preprocessing: Preprocessing | None = None) -> Augment:
        """The augmentation that the words say; `preprocessing` is what "usual" goes by.

        Raises: UsageError for an unknown word.
        """
        found = cls()
        words = text.split("+")
        if words[0].strip() == "usual" and preprocessing is not None:
            found, words = cls.usual(preprocessing), words[1:]
        for word in words:
            name, number = _split(word.strip())
            if name == "shift":
                found = replace(found, shift=None if number is None else int(number))
            elif name == "flip" and number is None:
                found = replace(found, flip=True)
            elif name == "crop" and number is None:
                found = replace(found, crop=True)
            elif name == "erase" and (number or 0) <= 1:
                found = replace(found, erase=0.25 if number is None else number)
            elif _POLICY.fullmatch(word.strip()):
                found = replace(found, policy=word.strip())
            elif word.strip() != "none":
                raise UsageError(
                    f'augmentation "{word}" is none of {", ".join(_WORDS)} or a policy such as rand-m9'
                    f"{did_you_mean(name, _WORDS)}"
                )
        return found

    @classmethod
    def usual(cls, preprocessing: Preprocessing) -> Augment:
        """For photographs crops and mirrors; for small images shifts, and mirrors where they have colours."""
        if not preprocessing.small:
            return cls(crop=True, flip=True)
        return cls(shift=None, flip=preprocessing.size[0] == 3)

    def pixels(self, side: int) -> int:
        """How far images of that side are shifted at most."""
        return max(1, round(side / _SHIFT_SHARE)) if self.shift is None else self.shift

    @property
    def needs_images(self) -> bool:
        """Whether it works on PIL images alone, and not on whole batches of tensors."""
        return self.crop or self.policy is not None or self.erase > 0


def _split(word: str) -> tuple[str, float | None]:
    found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)?", word)
    if found is None:
        return word, None
    return found[1], None if found[2] is None else float(found[2])


def training_transform(preprocessing: Preprocessing, augment: Augment) -> Callable[[Image], Tensor]:
    """PIL image -> normalized tensor (C, H, W), drawn from the generators of Python, numpy and torch."""
    from timm.data import create_transform
    from torchvision import transforms

    if augment.crop:
        transform: Callable[[Image], Tensor] = create_transform(
            input_size=preprocessing.size,
            is_training=True,
            hflip=0.5 if augment.flip else 0.0,
            # None leaves it out; a number, even 0, puts a step in.
            color_jitter=cast(Any, None),
            auto_augment=augment.policy,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
            re_prob=augment.erase,
        )
        return transform
    _, height, width = preprocessing.size
    steps: list[Any] = [
        transforms.Resize(
            [round(side / preprocessing.crop) for side in (height, width)],
            transforms.InterpolationMode(preprocessing.interpolation),
        ),
        transforms.CenterCrop((height, width)),
    ]
    if shift := augment.pixels(min(height, width)):
        steps.append(transforms.RandomCrop((height, width), padding=shift))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augment.policy is not None:
        steps.append(_policy(augment.policy, preprocessing))
    steps += [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
    if augment.erase:
        steps.append(transforms.RandomErasing(augment.erase))
    return transforms.Compose(steps)


def _policy(name: str, preprocessing: Preprocessing) -> Any:
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )

    fill = tuple(min(255, round(255 * value)) for value in preprocessing.mean)
    options = {"translate_const": int(min(preprocessing.size[1:]) * 0.45), "img_mean": fill}
    if name.startswith("rand"):
        return rand_augment_transform(name, options)
    if name.startswith("augmix"):
        return augment_and_mix_transform(name, options)
    return auto_augment_transform(name, options)
