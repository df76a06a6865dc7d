"""What a model expects of an image: its size and normalization, read from the model's own configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from torch import Tensor, nn

from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError
from binarize.inputs.seen import SMALL, Preprocessing
from binarize.inputs.shapes import infer

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Preprocessing", "evaluation_transform", "preprocessing_of"]

# Of torchvision's classifiers.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_CROP = 224 / 256


def preprocessing_of(
    model: nn.Module,
    *,
    size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """The preprocessing that the model's configuration says; `size` (C, H, W), `mean` and `std` override it.

    A converted model remembers how images were shown to it. timm models carry a configuration. torchvision's classifiers
    have that of ImageNet. For any other model the size is the one it was converted with, or that its first layer accepts,
    and pixels go to [-1, 1]. `origin` says which of these it is.

    Raises: UsageError where the size of its images is not known, or numbers are no mean or standard deviation.
    """
    found = _sized(_known(model, None if size is None else tuple(size)), size)
    channels = found.size[0]
    given = {name: values for name, values in (("mean", mean), ("std", std)) if values is not None}
    for name, values in given.items():
        if len(values) not in (1, channels):
            raise UsageError(
                f"{name} has {len(values)} numbers; the model takes {channels} channels, so give 1 or {channels}"
            )
        if not all(isfinite(value) for value in values):
            raise UsageError(f"{name} is {tuple(values)}; expected finite numbers")
    if given:
        rest = "" if len(given) == 2 else f"; {'std' if mean is not None else 'mean'} {found.origin}"
        found = replace(
            found,
            mean=found.mean if mean is None else _per_channel(mean, channels),
            std=found.std if std is None else _per_channel(std, channels),
            origin=f"{' and '.join(given)} as given{rest}",
        )
    if any(value <= 0 for value in found.std):
        raise UsageError(f"std is {found.std}; expected positive numbers")
    return found


def _sized(found: Preprocessing, given: Sequence[int] | None) -> Preprocessing:
    """The preprocessing at a size that was given, where it is another than its own."""
    if given is None or tuple(given) == found.size:
        return found
    size = _size(given)
    crop = found.crop if min(size[1:]) >= SMALL else 1.0
    mean, std = _per_channel(found.mean, size[0]), _per_channel(found.std, size[0])
    return replace(found, size=size, crop=crop, mean=mean, std=std)


def _known(model: nn.Module, given: tuple[int, ...] | None) -> Preprocessing:
    """What the model remembers, or else what it is by its class and its configuration."""
    conversion = conversion_of(model)
    remembered = None if conversion is None else conversion.seen.remembered()
    return remembered if remembered is not None else _configured(model, given)


def _configured(model: nn.Module, given: tuple[int, ...] | None) -> Preprocessing:
    shape = given or _image_shape(model)
    if isinstance(getattr(model, "pretrained_cfg", None), dict):
        from timm.data import resolve_model_data_config

        config = resolve_model_data_config(model)
        size = shape or (_channels(model), *config["input_size"][1:])
        return Preprocessing(
            _size(size),
            _per_channel(config["mean"], size[0]),
            _per_channel(config["std"], size[0]),
            float(config["crop_pct"]) if min(size[1:]) >= SMALL else 1.0,
            config["interpolation"],
            "from the model's timm configuration",
        )
    if _defined_by(model, "torchvision."):
        size = shape or (_channels(model), 224, 224)
        crop = _IMAGENET_CROP if min(size[1:]) >= SMALL else 1.0
        mean, std = _per_channel(_IMAGENET_MEAN, size[0]), _per_channel(_IMAGENET_STD, size[0])
        return Preprocessing(
            _size(size), mean, std, crop, origin="a guess: ImageNet's, as of torchvision's models"
        )
    more = ""
    if shape is None:
        more = "; the size is the first that its layers take"
        inferred = infer(model)
        sizes = inferred.kinds[0].shape if inferred is not None else ()
        shape = tuple(sizes[1:]) if len(sizes) == 4 else None
    if shape is None:
        raise UsageError(
            "the size of this model's images is not known: give a Dataset of tensors, or convert it with an example input"
        )
    half = (0.5,) * shape[0]
    guess = "a guess: pixels to [-1, 1], since the model says nothing else"
    return Preprocessing(_size(shape), half, half, origin=guess + more)


def _image_shape(model: nn.Module) -> tuple[int, ...] | None:
    """(C, H, W) of the images a converted model was captured on."""
    conversion = conversion_of(model)
    shapes = conversion.source.input_shapes if conversion is not None else ()
    return tuple(shapes[0][1:]) if shapes and len(shapes[0]) == 4 else None


def _channels(model: nn.Module) -> int:
    """Input channels of the first convolution; configurations say 3 also where a model was made for another number."""
    convolutions = (module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    return next(convolutions, 3)


def _defined_by(model: nn.Module, package: str) -> bool:
    """Whether the model's class, or the one it was rewritten from, comes from a package."""
    return any(cls.__module__.startswith(package) for cls in type(model).__mro__)


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    found = tuple(float(value) for value in values)
    return found if len(found) == channels else (sum(found) / len(found),) * channels


def _size(shape: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = (int(n) for n in shape)
    return channels, height, width


def evaluation_transform(preprocessing: Preprocessing) -> Callable[[Image], Tensor]:
    """PIL image -> normalized tensor (C, H, W), without any randomness."""
    from timm.data import create_transform

    transform: Callable[[Image], Tensor] = create_transform(
        input_size=preprocessing.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop,
        interpolation=preprocessing.interpolation,
    )
    return transform
