"""IDX files, the format of MNIST: four bytes that say type and dimensions, the sizes, the data; gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from binarize.disk.file_name import is_folder
from binarize.disk.special_file import why_special
from binarize.errors import SourceError, UsageError

__all__ = ["find_idx", "read_idx"]

# Third byte of the file -> numpy type, big-endian.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# A small gzip file may hold a thousand times its size.
_MOST_BYTES = 1 << 32
_SPLITS = {"train": ("train",), "validation": ("t10k", "test", "val", "valid")}


def read_idx(path: str | Path) -> Tensor:
    """The array in an IDX file, in its own type; its shape is the one in the file: (N, H, W) of images, (N,) of labels.

    Raises: SourceError for a file that is no IDX file, or is damaged.
    """
    raw = _bytes(Path(path))
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or raw[3] == 0:
        raise SourceError(
            f"{path}: no IDX file: it begins with {raw[:4].hex(' ') or 'nothing'}, not 00 00 <type> <dimensions>"
        )
    dimensions = raw[3]
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise SourceError(f"{path}: ends within its head: {len(raw)} bytes of {start}")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    kind = np.dtype(_TYPES[raw[2]])
    wanted = start + math.prod(shape) * kind.itemsize
    if len(raw) != wanted:
        size = "x".join(map(str, shape))
        raise SourceError(
            f"{path}: {len(raw)} bytes, where {size} numbers of {kind.itemsize} bytes need {wanted}; copy it again"
        )
    array = np.frombuffer(raw, kind, offset=start).reshape(shape)
    try:
        return torch.from_numpy(array.astype(kind.newbyteorder("=")))
    except MemoryError as error:
        raise SourceError(f"{path}: needs more memory than there is") from error


def _bytes(path: Path) -> bytes:
    special = why_special(path)
    if special is not None:
        raise SourceError(f"{path} {special}")
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        if not zipped:
            return path.read_bytes()
        with gzip.open(path) as packed:
            found = packed.read(_MOST_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: damaged gzip file: {error}; copy it again") from error
    except MemoryError as error:
        raise SourceError(f"{path}: needs more memory than there is") from error
    if len(found) > _MOST_BYTES:
        raise SourceError(f"{path}: holds more than {_MOST_BYTES >> 30} GiB unpacked; unpack it first")
    return found


def find_idx(folder: str | Path, split: str) -> tuple[Path, Path]:
    """(images, labels) of "train" or "validation" in a folder of IDX files, named as MNIST's are.

    Raises: UsageError where there is none, or there are several.
    """
    root = Path(folder)
    if not is_folder(root):
        raise UsageError(f"idx:{folder}: no such folder")
    files = sorted(path for path in root.iterdir() if path.is_file())
    words = _SPLITS[split]
    return _one(root, files, words, "images", 3), _one(root, files, words, "labels", 1)


def _one(root: Path, files: Sequence[Path], words: Sequence[str], what: str, dimensions: int) -> Path:
    found = [
        path
        for path in files
        if what in path.name and any(word in path.name for word in words) and f"idx{dimensions}" in path.name
    ]
    # The same file is often kept both zipped and unzipped.
    stems = {path.name.removesuffix(".gz"): path for path in found}
    if len(stems) == 1:
        return next(iter(stems.values()))
    example = f"{words[0]}-{what}-idx{dimensions}-ubyte[.gz]"
    if not stems:
        raise UsageError(f"idx:{root}: holds no file such as {example}")
    raise UsageError(
        f"idx:{root}: holds several such as {example}: {', '.join(sorted(stems))}; keep one set in a folder"
    )
