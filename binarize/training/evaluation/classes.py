"""Which output of a model a class folder belongs to: by its name where outputs have names, else by its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from binarize.errors import UsageError
from binarize.training.data.image_data import ImageData, without_empty_classes
from binarize.training.data.kinds.folders import FolderImages

__all__ = ["imagenet_names", "imagenet_numbers", "to_outputs"]

# Outputs of a classifier of ImageNet-1k, whose order everybody keeps.
_IMAGENET = 1000


def to_outputs(data: ImageData, outputs: Callable[[], int | None], known: Sequence[str]) -> ImageData:
    """The same images with each class folder numbered as the output that it names.

    `known` are the names that the model remembers of its outputs; a model of a thousand outputs has those of ImageNet: labels
    or numbers such as n01440764. Folders of other names are numbered in their order, where there is one for each output.
    `outputs` says how many there are, None where the model gives no class scores.

    Raises: UsageError, where there are fewer class folders than outputs and their names say nothing.
    """
    files = data.dataset
    if not data.labelled or data.ready:
        return data
    if not isinstance(files, FolderImages):
        return data if not data.classes else _told(data, outputs())
    used = [name for name in files.classes if name not in files.empty]
    if known and all(name in known for name in used):
        return _numbered(data, {name: label for label, name in enumerate(known)}, known, used)
    count = outputs()
    if count is None:
        return data
    if count == _IMAGENET and all(_plain(name) in imagenet_numbers() for name in used):
        numbers = {name: imagenet_numbers()[_plain(name)] for name in used}
        return _numbered(data, numbers, imagenet_names(), used)
    if known and len(known) == count:
        text = (
            f"{files.root}: its classes ({_few(used)}) are not those that the model remembers ({_few(known)})"
        )
        data = replace(data, notes=(*data.notes, text))
    if len(files.classes) < count:
        raise UsageError(
            f"{files.root}: {len(files.classes)} class folders ({_few(files.classes)}) for a model of {count:,} outputs, "
            "and their names are not those of its outputs\n"
            f"  convert the float model with --num-classes {len(files.classes)}, or name the folders as its classes"
        )
    return without_empty_classes(data, lambda: count)


def _numbered(
    data: ImageData, numbers: Mapping[str, int], names: Sequence[str], used: Sequence[str]
) -> ImageData:
    files = data.dataset
    assert isinstance(files, FolderImages)
    if files.classes == tuple(names):
        return data
    files.number_by(numbers, names)
    text = f"{files.root}: {len(used):,} of the model's {len(names):,} classes, found by their names"
    notes = data.notes if len(used) == len(names) else (*data.notes, text)
    return replace(data, classes=files.classes, notes=notes)


def _told(data: ImageData, count: int | None) -> ImageData:
    """Data that numbers its classes itself, with a note where the model has more outputs than these."""
    if count is None or len(data.classes) >= count:
        return data
    text = f"data {data.name}: {len(data.classes)} classes, and the model has {count:,} outputs; the others are never right"
    return replace(data, notes=(*data.notes, text))


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _plain(name: str) -> str:
    """A name as it is compared: "Great_White-shark" is "great white shark"."""
    return re.sub(r"[\s_-]+", " ", name.lower().strip())


@cache
def imagenet_names() -> tuple[str, ...]:
    """The labels of ImageNet-1k in the order of its outputs."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def imagenet_numbers() -> Mapping[str, int]:
    """A class's label, first synonym or number in WordNet -> its output; names of two classes are left out."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    found: list[tuple[str, int]] = []
    for label, (number, name) in enumerate(zip(info.label_names(), imagenet_names(), strict=True)):
        words = [
            number,
            name,
            info.index_to_description(label),
            info.index_to_description(label).split(",")[0],
        ]
        found += [(_plain(word), label) for word in dict.fromkeys(words)]
    pairs = set(found)
    often = Counter(name for name, _ in pairs)
    return {name: label for name, label in pairs if often[name] == 1}
