"""IDX files: read as written, zipped or not, and refused where they are damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch

from binarize.errors import SourceError, UsageError
from binarize.training.data import open_data
from binarize.training.data.kinds.idx import read_idx
from binarize.training.data.tensors import TensorImages


def idx(kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + data


IMAGES = idx(8, (4, 2, 3), bytes(range(24)))
LABELS = idx(8, (4,), bytes([3, 0, 1, 3]))


def write(folder: Path, split: str = "train", zipped: bool = False) -> None:
    for what, raw, dims in (("images", IMAGES, 3), ("labels", LABELS, 1)):
        name = f"{split}-{what}-idx{dims}-ubyte"
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)


@pytest.mark.parametrize(
    "kind, data, dtype, wanted",
    [
        (0x08, b"\x01\xff", torch.uint8, [1, 255]),
        (0x09, b"\x01\xff", torch.int8, [1, -1]),
        (0x0B, b"\x01\x00\xff\xff", torch.int16, [256, -1]),
        (0x0C, b"\0\0\1\0\xff\xff\xff\xff", torch.int32, [256, -1]),
        (0x0D, struct.pack(">2f", 1.5, -2), torch.float32, [1.5, -2]),
        (0x0E, struct.pack(">2d", 1.5, -2), torch.float64, [1.5, -2]),
    ],
)
def test_every_type_of_number(
    tmp_path: Path, kind: int, data: bytes, dtype: torch.dtype, wanted: list[float]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(idx(kind, (2,), data))
    found = read_idx(path)
    assert found.dtype == dtype and found.tolist() == wanted


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_like_mnists(tmp_path: Path, zipped: bool) -> None:
    write(tmp_path, "train", zipped), write(tmp_path, "t10k", zipped)
    for split in ("train", "validation"):
        data = open_data(f"idx:{tmp_path}", split)
        assert data is not None and isinstance(data.dataset, TensorImages)
        assert data.is_test == (split == "validation")
        assert data.dataset.images.shape == (4, 1, 2, 3)
        assert data.dataset.images[1].flatten().tolist() == [6, 7, 8, 9, 10, 11]
        assert data.dataset.labels is not None and data.dataset.labels.tolist() == [3, 0, 1, 3]
        assert data.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "begins with nothing"),
        (b"\x89PNG....", "begins with 89 50 4e 47"),
        (IMAGES[:9], "ends within its head: 9 bytes of 16"),
        (IMAGES[:-1], "39 bytes, where 4x2x3 numbers of 1 bytes need 40"),
        (IMAGES + b"\0", "41 bytes"),
        (gzip.compress(IMAGES, mtime=0)[:-12], "damaged gzip file"),
        (idx(8, (2**31, 2**31), b""), "numbers of 1 bytes need"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(raw)
    with pytest.raises(SourceError) as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_missing_and_doubled_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no file such as train-images-idx3-ubyte\[\.gz\]"):
        open_data(f"idx:{tmp_path}")
    with pytest.raises(UsageError, match="no such folder"):
        open_data(f"idx:{tmp_path}/nowhere")
    write(tmp_path)
    (tmp_path / "emnist-train-images-idx3-ubyte").write_bytes(IMAGES)
    with pytest.raises(UsageError, match=r"holds several such as .*emnist-train"):
        open_data(f"idx:{tmp_path}")


def test_labels_must_fit(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(8, (3,), b"abc"))
    with pytest.raises(SourceError, match=r"shape \(3,\) for 4 images"):
        open_data(f"idx:{tmp_path}")
