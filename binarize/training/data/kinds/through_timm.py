"""Data sets of other packages, opened through timm."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from binarize.errors import UsageError
from binarize.training.data.image_data import ImageData, class_names_of
from binarize.training.data.tensors import TensorImages

__all__ = ["PREFIXES", "through_timm"]

# What timm opens, and the package that it needs for that.
PREFIXES = {
    "torch": "torchvision",
    "hfds": "datasets",
    "hfids": "datasets",
    "wds": "webdataset",
    "tfds": "tensorflow_datasets",
}


def through_timm(
    name: str, prefix: str, split: str, size: Sequence[int], root: Path, download: bool
) -> ImageData:
    from timm.data import create_dataset

    package = PREFIXES[prefix]
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
    classes = class_names_of(dataset)
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
