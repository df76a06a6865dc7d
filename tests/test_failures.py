"""Failures of files, devices and memory, and of the user's code, are errors of ours in words."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from pathlib import Path

import pytest
import torch
from test_cli import run

from binarize.disk.special_file import why_special
from binarize.errors import CaptureError, ResourceError, RuleError, SourceError, UsageError
from binarize.failures import in_words
from binarize.rules.text import read_text
from binarize.training.data.kinds import idx
from binarize.training.data.kinds.folders import FolderImages


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), ResourceError, "x: No space left on device\n  make room"),
        (OSError(errno.EMFILE, "Too many open files"), ResourceError, "Too many open files\n  too many files are open"),
        (PermissionError(errno.EACCES, "Permission denied", "y"), ResourceError, "y: Permission denied"),
        (MemoryError(), ResourceError, "not enough memory: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory."), ResourceError, "not enough memory: CUDA out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError, "not enough memory: DefaultCPU"),
        (AssertionError("Torch not compiled with CUDA enabled"), UsageError, "the device cannot be used: Torch not"),
        (
            RuntimeError("DataLoader worker (pid 4678) is killed by signal: Killed. "),
            ResourceError,
            "a process that reads images ended: killed by signal: Killed\n  it may have needed too much memory",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 46, 47) exited unexpectedly"),
            ResourceError,
            "a process that reads images ended: it did not say why",
        ),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SourceError, "a file that should be text is not UTF-8"),
    ],
)  # fmt: skip
def test_a_failure_that_is_not_ours_is_told_in_words(error: Exception, kind: type, words: str) -> None:
    told = in_words(error)
    assert type(told) is kind and str(told).startswith(words)


def test_an_error_of_the_users_code_names_its_line() -> None:
    try:
        raise KeyError("mine")
    except KeyError as error:
        told = in_words(error)
    assert type(told) is CaptureError and str(told).startswith(f"{__file__}:")


def test_a_fault_of_ours_is_left_alone() -> None:
    try:
        why_special(object())  # type: ignore[arg-type]
    except TypeError as error:
        assert in_words(error) is None


def test_a_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "my.yaml").write_text("schema: 1\nextends: pipe.yaml\nrules: []\n")
    with pytest.raises(RuleError, match=r"pipe\.yaml is a pipe; expected a file"):
        read_text(tmp_path / "pipe.yaml")
    result = run("rules", "validate", tmp_path / "my.yaml")
    assert result.exit_code == 3 and "is a pipe; expected a file" in result.stderr
    with pytest.raises(RuleError, match="/dev/zero is a device"):
        read_text("/dev/zero")


def test_an_image_that_is_a_pipe_or_too_large_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    Image.new("1", (100, 100)).save(tmp_path / "a" / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    images = FolderImages(tmp_path)
    with pytest.raises(ValueError, match="is a pipe"):
        images[0]
    with pytest.raises(ValueError, match="could be decompression bomb"):
        images[1]


def test_an_idx_file_is_unpacked_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_MOST_BYTES", 1 << 20)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 1 << 22) + bytes(1 << 22)))
    with pytest.raises(SourceError, match="holds more than 0 GiB unpacked"):
        idx.read_idx(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="is a pipe"):
        idx.read_idx(tmp_path / "pipe")
