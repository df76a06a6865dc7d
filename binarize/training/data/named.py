"""Data by name: what `--data` and `data=` take.

digits            the bundled 8 x 8 digits
fake, fake:256    made-up images of smooth patterns, one pattern a class; so many for training, a quarter for validation
idx:PATH          a folder of IDX files such as MNIST's, gzipped or not
PATH              a folder of class folders, or of train/ and val/ with class folders each; where no labels are needed, of
                  images alone
torch/NAME        a data set of torchvision (torch/cifar10), through timm; downloaded only where asked for
hfds/NAME, wds/PATH, tfds/NAME    Hugging Face, WebDataset and TensorFlow data sets, through timm
a Dataset or DataLoader of (image, label); images of tensors as the model takes them; an ImageData
(images, labels)  tensors: uint8 images are preprocessed, floating ones are taken as they are
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from binarize.demo.digits import load_digits
from binarize.disk.file_name import is_there
from binarize.errors import SourceError, UsageError, did_you_mean
from binarize.training.data.folders import FolderImages, class_names, is_test, split_folder
from binarize.training.data.idx import find_idx, read_idx
from binarize.training.data.seeds import generator
from binarize.training.data.tensors import TensorImages, to_size

__all__ = ["ImageData", "divided", "limited", "numbered", "open_data", "without_empty_classes"]

_NAMES = ("digits", "fake")
# What timm opens, and the package that it needs for that.
_PREFIXES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "wds": "webdataset",
    "tfds": "tensorflow_datasets",
}
_FAKE_IMAGES = 256


@dataclass(frozen=True)
class ImageData:
    """One split of a data set, before anything is done to its images."""

    name: str
    # Map-style: items are (image, label). Or a loader or an iterable of the user's own.
    dataset: Dataset[Any] | DataLoader[Any]
    classes: tuple[str, ...] = ()
    # Whether the images are what the model takes; else they are preprocessed.
    ready: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)
    # Whether it is what results are reported on: nothing should be chosen by it.
    is_test: bool = False
    # Whether it has a name that opens it again.
    by_name: bool = False
    # Whether it has labels, as far as its folders tell.
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


def open_data(
    data: object,
    split: str = "train",
    *,
    size: Sequence[int] = (3, 224, 224),
    classes: int = 10,
    root: str | Path = "data",
    download: bool = False,
    labelled: bool = True,
) -> ImageData | None:
    """The "train" or "validation" split of named data; None where it has no such split.

    `size` (C, H, W) says in which colours files are read and how large made-up images are; `classes` how many classes these
    have. `root` is where torchvision's data sets lie or are downloaded to. Unless it has to be `labelled`, a folder need
    have no class folders.

    Raises: UsageError for a name that leads nowhere, SourceError for damaged files.
    """
    if isinstance(data, ImageData):
        return data if split == "train" else None
    if isinstance(data, (str, os.PathLike)):
        found = _named(str(data), split, size, classes, Path(root), download, labelled)
        return None if found is None else replace(found, by_name=True)
    if isinstance(data, Tensor):
        data = (data, None)
    if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor):
        return _tensors(*data) if split == "train" else None
    if isinstance(data, (Dataset, DataLoader)):
        name = type(data.dataset if isinstance(data, DataLoader) else data).__name__
        return ImageData(name, data, _class_names(data), ready=True) if split == "train" else None
    raise UsageError(
        f"data is a {type(data).__name__}; "
        "expected a name such as digits, a folder, a Dataset, a DataLoader or (images, labels)"
    )


def is_made_up(data: object) -> bool:
    """Whether this names images that are made up, as many classes of them as somebody asks for: "fake", "fake:256"."""
    word, _, count = data.partition(":") if isinstance(data, str) else ("", "", "")
    return word == "fake" and (not count or count.isdecimal())


def numbered(data: ImageData, classes: Sequence[str]) -> ImageData:
    """The same images with classes numbered as in the list; other data than a folder, or without a list, as it is.

    Raises: UsageError, where the folder has a class that is not in the list.
    """
    if not isinstance(data.dataset, FolderImages) or not classes or data.classes == tuple(classes):
        return data
    data.dataset.number_as(classes)
    return replace(data, classes=data.dataset.classes)


def without_empty_classes(data: ImageData, outputs: Callable[[], int]) -> ImageData:
    """A folder without class folders that hold no image, where a model has one output for each of the others."""
    files = data.dataset
    if not isinstance(files, FolderImages) or not files.empty:
        return data
    if len(files.classes) - len(files.empty) != outputs():
        return data
    return numbered(data, [name for name in files.classes if name not in files.empty])


def _named(
    name: str, split: str, size: Sequence[int], classes: int, root: Path, download: bool, labelled: bool
) -> ImageData | None:
    word, _, rest = name.partition(":")
    if name == "digits":
        digits = load_digits()
        images, labels = digits[:2] if split == "train" else digits[2:]
        # To [0, 1], exactly: the file holds sixteenths.
        return ImageData(name, TensorImages((images + 1) / 2, labels), tuple("0123456789"))
    if is_made_up(name):
        count = int(rest or _FAKE_IMAGES)
        return _fake(name, count if split == "train" else -(-count // 4), split, size, classes)
    if word == "idx" and rest:
        return _idx(name, rest, split)
    prefix, slash, _ = name.partition("/")
    if slash and prefix.lower() in _PREFIXES and not is_there(name):
        return _through_timm(name, prefix.lower(), split, size, root, download)
    if not is_there(name):
        hint = did_you_mean(name, [*_NAMES, *(f"{p}/" for p in _PREFIXES)])
        raise UsageError(
            f"data {name}: no such folder, and no name of data{hint}\n"
            f"  expected {', '.join(_NAMES)}, idx:PATH, torch/NAME, hfds/NAME, wds/PATH or a folder of class folders"
        )
    folder = split_folder(Path(name), split)
    if folder is None:
        return None
    files = FolderImages(folder, "L" if size[0] == 1 else "RGB", labelled=labelled)
    if not files.labelled:
        return ImageData(name, files, notes=files.notes(), is_test=is_test(folder.name), labelled=False)
    training = split_folder(Path(name), "train") if split != "train" else None
    if training is not None:
        files.number_as(class_names(training))
    return ImageData(name, files, files.classes, notes=files.notes(), is_test=is_test(folder.name))


def _idx(name: str, folder: str, split: str) -> ImageData:
    image_file, label_file = find_idx(folder, split)
    images, labels = read_idx(image_file), read_idx(label_file)
    if images.dim() != 3 or images.dtype != torch.uint8:
        raise SourceError(
            f"{image_file}: {images.dtype} of shape {tuple(images.shape)}; expected bytes (N, height, width)"
        )
    if labels.dim() != 1 or len(labels) != len(images):
        raise SourceError(
            f"{label_file}: shape {tuple(labels.shape)} for {len(images)} images in {image_file.name}"
        )
    labels = labels.long()
    classes = tuple(str(i) for i in range(int(labels.max()) + 1)) if len(labels) else ()
    named_test = "t10k" in image_file.name or "test" in image_file.name
    return ImageData(name, TensorImages(images.unsqueeze(1), labels), classes, is_test=named_test)


def _fake(name: str, count: int, split: str, size: Sequence[int], classes: int) -> ImageData:
    """Each class a smooth pattern, each image that pattern with noise: learnable in a few steps, and no white noise."""
    channels, height, width = size
    patterns = torch.rand(classes, channels, 4, 4, generator=generator(0, classes))
    patterns = to_size(patterns, (height, width))
    draw = generator(1 if split == "train" else 2, count)
    labels = torch.randint(0, classes, (count,), generator=draw)
    noise = torch.rand(count, channels, height, width, generator=draw)
    images = ((0.75 * patterns[labels] + 0.25 * noise) * 255).round().to(torch.uint8)
    return ImageData(name, TensorImages(images, labels), tuple(f"pattern {i}" for i in range(classes)))


def _through_timm(
    name: str, prefix: str, split: str, size: Sequence[int], root: Path, download: bool
) -> ImageData:
    from timm.data import create_dataset

    package = _PREFIXES[prefix]
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"data {name} needs the package {package}: pip install {package.replace('_', '-')}")
    where: dict[str, Any] = (
        {"root": str(root), "download": download} if prefix in ("torch", "tfds", "hfids") else {}
    )
    if prefix == "wds":
        where = {"root": name.partition("/")[2]}
    try:
        dataset = create_dataset(
            name,
            split=split,
            is_training=split == "train",
            input_img_mode="L" if size[0] == 1 else "RGB",
            **where,
        )
    except AssertionError as error:
        raise UsageError(f"data {name}: {error}") from error
    except RuntimeError as error:
        raise UsageError(
            f"data {name}: {str(error).strip()}\n  looked in {root}; --data-root names another folder, --download fetches it"
        ) from error
    classes = _class_names(dataset)
    # torchvision's small sets are cut in two: what is not for training is for testing.
    for_testing = getattr(dataset, "train", None) is False
    return ImageData(name, _in_memory(dataset) or dataset, classes, is_test=for_testing)


def _in_memory(dataset: object) -> TensorImages | None:
    """The tensors of torchvision's small data sets, which hold all images in one array."""
    images, labels = (
        getattr(dataset, "data", None),
        getattr(dataset, "targets", getattr(dataset, "labels", None)),
    )
    if images is None or labels is None or getattr(dataset, "transform", None) is not None:
        return None
    tensor = torch.as_tensor(images)
    if tensor.dtype != torch.uint8 or tensor.dim() not in (3, 4):
        return None
    if tensor.dim() == 3:
        tensor = tensor.unsqueeze(1)
    elif tensor.shape[-1] in (1, 3) and tensor.shape[1] not in (1, 3):
        tensor = tensor.permute(0, 3, 1, 2).contiguous()
    return TensorImages(tensor, torch.as_tensor(labels).long())


def _tensors(images: Tensor, labels: Tensor | None) -> ImageData:
    if labels is not None and len(labels) != len(images):
        raise UsageError(f"data has {len(images)} images and {len(labels)} labels")
    if not len(images):
        raise UsageError("data holds no image")
    return ImageData("tensors", TensorImages(images, labels), ready=images.is_floating_point())


def _class_names(dataset: object) -> tuple[str, ...]:
    source = dataset.dataset if isinstance(dataset, (DataLoader, Subset)) else dataset
    names = getattr(source, "classes", None)
    return tuple(str(name) for name in names) if isinstance(names, (list, tuple)) else ()


def limited(data: ImageData, count: int | None, seed: int = 0) -> ImageData:
    """Only so many images, the same for the same seed; all of them for None."""
    if count is None or count >= len(data):
        return data
    return _chosen(data, _permutation(len(data), seed)[:count])


def divided(data: ImageData, share: float, seed: int = 0) -> tuple[ImageData, ImageData]:
    """(the rest, a share) of the images, drawn at random and the same for the same seed.

    Raises: UsageError where nothing would be left on one side.
    """
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise UsageError(
            f"a validation share of {share:g} of {len(data)} images is {count}; both parts need some"
        )
    order = _permutation(len(data), seed)
    return _chosen(data, order[count:]), _chosen(data, order[:count])


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, count))


def _chosen(data: ImageData, indices: Tensor) -> ImageData:
    dataset = data.dataset
    if isinstance(dataset, TensorImages):
        labels = None if dataset.labels is None else dataset.labels[indices]
        return replace(data, dataset=TensorImages(dataset.images[indices], labels))
    if isinstance(dataset, (DataLoader, IterableDataset)):
        raise UsageError(f"data {data.name} cannot be divided: give a map-style Dataset rather than a loader")
    return replace(data, dataset=_Named(dataset, indices.tolist()))


class _Named(Subset[Any]):
    """A subset that still knows the files of its images."""

    def name(self, index: int) -> str:
        """The name of an image, where the data set has names."""
        own = getattr(self.dataset, "name", None)
        position = self.indices[index]
        return str(own(position)) if callable(own) else f"image {position}"
