"""What a model expects of an image: its size and normalization, read from the model's own configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from binarize.conversion import conversion_of
from binarize.errors import UsageError
from binarize.sources.input_shapes import infer

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Preprocessing", "evaluation_transform", "preprocessing_of"]

# Of torchvision's classifiers.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_CROP = 224 / 256
# Below this side an image is shown as it is; above it, its rim is cut off as the published accuracies do.
_SMALL = 96


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor: resized, cropped in the middle, scaled to [0, 1], normalized."""

    # (channels, height, width)
    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # Side of the crop over side of the resized image.
    crop: float = 1.0
    interpolation: str = "bilinear"
    # Where this comes from, for people.
    origin: str = ""

    @property
    def small(self) -> bool:
        """Whether images are so small that cutting off their rim loses what they show."""
        return min(self.size[1:]) < _SMALL

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that `to_json` wrote."""
        lists = {key: tuple(data[key]) for key in ("size", "mean", "std")}
        return cls(**{**data, **lists})


def preprocessing_of(
    model: nn.Module,
    *,
    size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """The preprocessing that the model's configuration says; `size` (C, H, W), `mean` and `std` override it.

    timm models carry a configuration. torchvision's classifiers have that of ImageNet. For any other model the size is the
    one it was converted with, or that its first layer accepts, and pixels go to [-1, 1].

    Raises: UsageError where the size of its images is not known.
    """
    found = _configured(model, None if size is None else tuple(size))
    channels = found.size[0]
    for name, given in (("mean", mean), ("std", std)):
        if given is not None and len(given) not in (1, channels):
            raise UsageError(
                f"{name} has {len(given)} numbers; the model takes {channels} channels, so give 1 or {channels}"
            )
    if mean is not None:
        found = replace(found, mean=_per_channel(mean, channels), origin=f"{found.origin}; mean as given")
    if std is not None:
        found = replace(found, std=_per_channel(std, channels), origin=f"{found.origin}; std as given")
    if any(value <= 0 for value in found.std):
        raise UsageError(f"std is {found.std}; expected positive numbers")
    return found


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
            float(config["crop_pct"]) if min(size[1:]) >= _SMALL else 1.0,
            config["interpolation"],
            "the model's timm configuration",
        )
    if _defined_by(model, "torchvision."):
        size = shape or (_channels(model), 224, 224)
        crop = _IMAGENET_CROP if min(size[1:]) >= _SMALL else 1.0
        mean, std = _per_channel(_IMAGENET_MEAN, size[0]), _per_channel(_IMAGENET_STD, size[0])
        return Preprocessing(_size(size), mean, std, crop, origin="ImageNet, as torchvision's models")
    if shape is None:
        inferred = infer(model)
        sizes = inferred.kinds[0].shape if inferred is not None else ()
        shape = tuple(sizes[1:]) if len(sizes) == 4 else None
    if shape is None:
        raise UsageError(
            "the size of this model's images is not known: give a Dataset of tensors, or convert it with an example input"
        )
    half = (0.5,) * shape[0]
    return Preprocessing(_size(shape), half, half, origin="pixels to [-1, 1]: the model says nothing else")


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
    """PIL image -> normalized tensor, without any randomness."""
    from timm.data import create_transform

    transform: Callable[[Image], Tensor] = create_transform(
        input_size=preprocessing.size,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop,
        interpolation=preprocessing.interpolation,
    )
    return transform
