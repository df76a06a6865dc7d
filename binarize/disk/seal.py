"""A file of torch.save that carries the sha256 of its bytes, so that one flipped bit in it is noticed.

Such a file is a zip archive, which may end with a comment; the digest is that comment, and torch reads the file as before.

    archive ... end record of 20 bytes | length of the comment, 2 bytes | comment
    the digest is of everything before the length, which has one value only
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from binarize.errors import CheckError

__all__ = ["is_sealed", "save_sealed"]

_END, _END_BYTES = b"PK\x05\x06", 20
_TEXT = b"sha256 "
_COMMENT_BYTES = len(_TEXT) + 64
_CHUNK = 1 << 20


def save_sealed(content: object, path: Path) -> None:
    """torch.save with a digest. Raises: OSError, also where torch calls a full disk something else."""
    try:
        with path.open("w+b") as file:
            _save(content, file)
            size = file.seek(0, os.SEEK_END) - 2
            digest = _digest(file, size)
            file.seek(size)
            file.write(_COMMENT_BYTES.to_bytes(2, "little") + _TEXT + digest)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_sealed(path: Path) -> bool:
    """Whether a file carries a digest, which is then that of its bytes; those of older versions carry none.

    Raises: CheckError, where the file is damaged.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if _ends_at(file, size - _END_BYTES - 2, 0):
            return False
        end = size - _COMMENT_BYTES - 2
        if _ends_at(file, end - _END_BYTES, _COMMENT_BYTES):
            file.seek(end + 2)
            if file.read() == _TEXT + _digest(file, end):
                return True
    raise CheckError(f"{path}: damaged: it is not what was written (sha256 differs)")


def _save(content: object, file: BinaryIO) -> None:
    import torch

    disk = _Disk(file)
    try:
        torch.save(content, disk)  # type: ignore[arg-type]
    except RuntimeError as error:
        if disk.error is None:
            raise
        raise disk.error from error


class _Disk:
    """A file that remembers its own error: torch's writer gives another one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _ends_at(file: BinaryIO, start: int, comment: int) -> bool:
    """Whether the archive's end record begins there, followed by a comment of that length."""
    if start < 0:
        return False
    file.seek(start)
    data = file.read(_END_BYTES + 2)
    return data.startswith(_END) and data[_END_BYTES:] == comment.to_bytes(2, "little")


def _digest(file: BinaryIO, size: int) -> bytes:
    """Of the first bytes, in hexadecimal."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        data = file.read(min(size, _CHUNK))
        if not data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        digest.update(data)
        size -= len(data)
    return digest.hexdigest().encode()
