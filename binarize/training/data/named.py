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

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from binarize.demo.digits import load_digits
from binarize.disk.file_name import is_there
from binarize.errors import SourceError, UsageError, did_you_mean
from binarize.training.data.image_data import ImageData, class_names_of
from binarize.training.data.kinds.folders import FolderImages, class_names, is_test, split_folder
from binarize.training.data.kinds.idx import find_idx, read_idx
from binarize.training.data.kinds.made_up import FAKE_IMAGES, is_made_up, made_up
from binarize.training.data.kinds.through_timm import PREFIXES, through_timm
from binarize.training.data.tensors import TensorImages

__all__ = ["open_data"]

_NAMES = ("digits", "fake")


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
        wanted = _Wanted(split, size, classes, Path(root), download, labelled)
        found = _named(str(data), wanted)
        return None if found is None else replace(found, by_name=True)
    if isinstance(data, Tensor):
        data = (data, None)
    if isinstance(data, (tuple, list)) and len(data) == 2 and isinstance(data[0], Tensor):
        return _tensors(*data) if split == "train" else None
    if isinstance(data, (Dataset, DataLoader)):
        name = type(data.dataset if isinstance(data, DataLoader) else data).__name__
        return ImageData(name, data, class_names_of(data), ready=True) if split == "train" else None
    raise UsageError(
        f"data is a {type(data).__name__}; "
        "expected a name such as digits, a folder, a Dataset, a DataLoader or (images, labels)"
    )


@dataclass(frozen=True)
class _Wanted:
    """What is asked of named data: the arguments of `open_data`."""

    split: str
    size: Sequence[int]
    classes: int
    root: Path
    download: bool
    labelled: bool


def _named(name: str, wanted: _Wanted) -> ImageData | None:
    word, _, rest = name.partition(":")
    if name == "digits":
        digits = load_digits()
        images, labels = digits[:2] if wanted.split == "train" else digits[2:]
        # To [0, 1], exactly: the file holds sixteenths.
        return ImageData(name, TensorImages((images + 1) / 2, labels), tuple("0123456789"))
    if is_made_up(name):
        count = int(rest or FAKE_IMAGES)
        return made_up(
            name,
            count if wanted.split == "train" else -(-count // 4),
            wanted.split,
            wanted.size,
            wanted.classes,
        )
    if word == "idx" and rest:
        return _idx(name, rest, wanted.split)
    prefix, slash, _ = name.partition("/")
    if slash and prefix.lower() in PREFIXES and not is_there(name):
        return through_timm(name, prefix.lower(), wanted.split, wanted.size, wanted.root, wanted.download)
    if not is_there(name):
        hint = did_you_mean(name, [*_NAMES, *(f"{p}/" for p in PREFIXES)])
        raise UsageError(
            f"data {name}: no such folder, and no name of data{hint}\n"
            f"  expected {', '.join(_NAMES)}, idx:PATH, torch/NAME, hfds/NAME, wds/PATH or a folder of class folders"
        )
    folder = split_folder(Path(name), wanted.split)
    if folder is None:
        return None
    files = FolderImages(folder, "L" if wanted.size[0] == 1 else "RGB", labelled=wanted.labelled)
    if not files.labelled:
        return ImageData(name, files, notes=files.notes(), is_test=is_test(folder.name), labelled=False)
    training = split_folder(Path(name), "train") if wanted.split != "train" else None
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


def _tensors(images: Tensor, labels: Tensor | None) -> ImageData:
    if labels is not None and len(labels) != len(images):
        raise UsageError(f"data has {len(images)} images and {len(labels)} labels")
    if not len(images):
        raise UsageError("data holds no image")
    return ImageData("tensors", TensorImages(images, labels), ready=images.is_floating_point())
