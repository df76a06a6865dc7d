"""Checksums of a file and of the records in it."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import IO

from binarize.sources.files.kinds import is_archive

__all__ = ["damaged_record", "record_start", "sha256"]


BLOCK = 1 << 22


def sha256(file: IO[bytes]) -> str:
    """The sha256 of an open file, which is closed; read in blocks with the interpreter lock released."""
    digest = hashlib.sha256()
    with file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def damaged_record(path: Path) -> str | None:
    """The first record of a torch.save archive whose own checksum is wrong; torch does not look at them."""
    if not is_archive(path):
        return None
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            # 0: torch.save was told not to compute checksums.
            if entry.CRC != 0 and entry.compress_type == zipfile.ZIP_STORED and not _is_whole(file, entry):
                return entry.filename
    return None


def _is_whole(file: IO[bytes], entry: zipfile.ZipInfo) -> bool:
    file.seek(record_start(file, entry))
    checksum, left = 0, entry.file_size
    while left > 0 and (block := file.read(min(BLOCK, left))):
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    return left == 0 and checksum == entry.CRC


def record_start(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the content of an uncompressed record begins."""
    # A local header is 30 bytes; the last four are the lengths of the name and the extra field that follow it.
    file.seek(entry.header_offset + 26)
    name, extra = int.from_bytes(file.read(2), "little"), int.from_bytes(file.read(2), "little")
    return entry.header_offset + 30 + name + extra
