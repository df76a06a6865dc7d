"""A sealed file is read as before, and no bit of it can change unnoticed."""

from __future__ import annotations

import errno
import os
import random
import zipfile
from pathlib import Path

import pytest
import torch

from binarize.disk.seal import is_sealed, save_sealed
from binarize.errors import CheckError

CONTENT = {"weights": torch.arange(100.0), "step": 3}


def assert_whole(path: Path) -> None:
    for mmap in (False, True):
        found = torch.load(path, weights_only=True, mmap=mmap)
        assert found["step"] == 3 and torch.equal(found["weights"], CONTENT["weights"])


def test_torch_and_zip_read_a_sealed_file_as_any_other(tmp_path: Path) -> None:
    save_sealed(CONTENT, tmp_path / "file")
    assert is_sealed(tmp_path / "file")
    assert_whole(tmp_path / "file")
    assert zipfile.ZipFile(tmp_path / "file").testzip() is None


def test_a_file_of_an_older_version_has_no_seal(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "file")
    assert not is_sealed(tmp_path / "file")


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_sealed(CONTENT, path)
    data = path.read_bytes()
    # All of the end, where the seal is, and some of the rest.
    end = range(8 * (len(data) - 120), 8 * len(data))
    for bit in [*end, *random.Random(0).sample(range(8 * len(data)), 200)]:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(CheckError, match="damaged"):
            is_sealed(path)


@pytest.mark.parametrize("left", [0, 1, 21, 22, 100, -1, -73, -95])
def test_a_file_cut_short_is_damaged(left: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_sealed(CONTENT, path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckError, match="damaged"):
        is_sealed(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_an_error_of_the_disk() -> None:
    with pytest.raises(OSError) as caught:
        save_sealed({"weights": torch.zeros(1 << 18)}, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC
