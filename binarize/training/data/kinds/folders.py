"""A folder of class folders: root/cat/1.jpg, or root/train/cat/1.jpg beside root/val/cat/7.jpg."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from binarize.disk.file_name import as_text, is_folder
from binarize.disk.special_file import why_special
from binarize.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SPLITS", "FolderImages", "class_names", "is_test", "split_folder"]

# Names of subfolders that hold a split, the first that exists counts.
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation", "test", "eval")}

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")

_NO_LABEL = -1
# A file of a few kilobytes can hold so many pixels of one colour; and the shorter side is resized to the network's.
_MOST_PIXELS, _LONGEST = 90_000_000, 1000


class FolderImages(Dataset["tuple[Image, int] | tuple[Image]"]):
    """The images below a folder. A class is a subfolder; they are numbered in the order of their names, as text.

    Where no labels are asked for, images in the folder itself are taken if there are no others.
    """

    def __init__(self, root: Path, mode: str = "RGB", *, labelled: bool = True) -> None:
        self.root = root
        # As PIL calls it: "RGB", "L".
        self.mode = mode
        self.classes = class_names(root)
        folders = _class_folders(root)
        self.files: list[tuple[Path, int]] = []
        self.others = 0
        empty = []
        for label, (name, folder) in enumerate(zip(self.classes, folders)):
            # A link that leads nowhere is an image that cannot be read.
            paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
            images = [path for path in paths if path.suffix.lower() in _EXTENSIONS]
            self.others += len(paths) - len(images)
            self.files += [(path, label) for path in images]
            if not images:
                empty.append(name)
        self.empty = tuple(empty)
        loose = sorted(p for p in root.iterdir() if p.suffix.lower() in _EXTENSIONS and not p.is_dir())
        self.labelled = bool(self.files) or not loose or labelled
        if not self.labelled:
            self.files = [(path, _NO_LABEL) for path in loose]
        elif loose and not self.files:
            raise UsageError(
                f"{root}: its {len(loose):,} images have no labels; these are read from folders, one a class, as in "
                f"{root}/cat/1.jpg\n  without labels calibrate takes them, and eval beside the float model"
            )
        elif loose:
            self.others += len(loose)
        if not self.classes and not self.files:
            raise UsageError(f"{root}: holds no folder; expected one a class, as in {root}/cat/1.jpg")
        if not self.files:
            raise UsageError(
                f"{root}: its {len(self.classes)} folders hold no image ({', '.join(_EXTENSIONS)})"
            )

    def number_as(self, classes: Sequence[str]) -> None:
        """Number the classes as in this list, such as that of the training images, whatever folders there are here.

        Raises: UsageError, where a folder with images is none of them.
        """
        self.number_by({name: label for label, name in enumerate(classes)}, classes)

    def number_by(self, numbers: Mapping[str, int], classes: Sequence[str]) -> None:
        """Number the folders as told, where `classes` are the names of all numbers.

        Raises: UsageError, where a folder with images is none of them.
        """
        used = dict.fromkeys(self.classes[label] for _, label in self.files)
        strange = [name for name in used if name not in numbers]
        if strange:
            raise UsageError(
                f"{self.root}: its folder {strange[0]} is no class of the training images "
                f"({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})"
            )
        self.files = [(path, numbers[self.classes[label]]) for path, label in self.files]
        filled = {numbers[name] for name in used}
        self.empty = tuple(name for label, name in enumerate(classes) if label not in filled)
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The file of an image."""
        return str(self.files[index][0])

    def __getitem__(self, index: int) -> tuple[Image, int] | tuple[Image]:
        from PIL import Image

        path, label = self.files[index]
        special = why_special(path)
        if special is not None:
            raise ValueError(special)
        try:
            with Image.open(path) as image:
                _check_size(image.size)
                shown = image.convert(self.mode)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
        return (shown,) if label == _NO_LABEL else (shown, label)

    def notes(self) -> tuple[str, ...]:
        """What a user should know about the folder."""
        found = []
        if self.empty:
            found.append(
                f"{self.root}: no image in {len(self.empty)} class folders: {', '.join(self.empty[:3])}"
            )
        if self.others:
            found.append(f"{self.root}: {self.others} files are no images by their names, and are left out")
        if self.classes != tuple(sorted(self.classes, key=_natural)):
            found.append(
                f"{self.root}: classes are numbered as text: {', '.join(self.classes[:3])}, ...; "
                "a model trained with timm numbers them naturally"
            )
        return tuple(found)


def _check_size(size: tuple[int, int]) -> None:
    """Raises: ValueError, where an image would take more memory than its file explains, as it is or resized."""
    if size[0] * size[1] > _MOST_PIXELS or max(size) > _LONGEST * min(size):
        raise ValueError(f"is of {size[0]:,} x {size[1]:,} pixels, which no image to learn from is")


def class_names(root: Path) -> tuple[str, ...]:
    """The names of the class folders, in the order of their numbers; hidden folders are none."""
    return tuple(as_text(folder.name) for folder in _class_folders(root))


def _class_folders(root: Path) -> list[Path]:
    found = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name)


def _natural(name: str) -> list[tuple[int, str]]:
    import re

    words = re.split(r"(\d+)", name.lower())
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def is_test(name: str) -> bool:
    """Whether a folder of this name holds what results are reported on."""
    return name in ("test", "eval")


def split_folder(root: Path, split: str, exists: Callable[[Path], bool] = Path.is_dir) -> Path | None:
    """The subfolder of a split; the folder itself for "train" where it has no such subfolders; else None."""
    if not is_folder(root):
        raise UsageError(f"{root}: no such folder")
    for name in SPLITS[split]:
        if exists(root / name):
            return root / name
    has_other = any(exists(root / name) for names in SPLITS.values() for name in names)
    return root if split == "train" and not has_other else None
