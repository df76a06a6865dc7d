"""The parts of a `torch.save` file: its pickle, read inertly, and the data of its tensors.

    zip archive   NAME/data.pkl, NAME/data/KEY (one a storage), NAME/byteorder
    before 1.6    three pickles about the machine, the object, the keys; then each storage behind its length

Every size that the pickle claims is compared with the file before anything is read.
"""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import torch

from binarize.sources.files.checksums import record_start
from binarize.sources.files.kinds import is_archive
from binarize.sources.files.pickles.inert import Named, Pairs, Stored
from binarize.sources.files.pickles.pickle_scan import Scan, scan

__all__ = ["Records", "Reference", "reference_of"]

OLD_MAGIC = 0x1950A86A20F9469CFC6C
OLD_PROTOCOL = 1001
# The classes of torch.save's references -> the type of the elements.
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.qint32,
    "QInt8Storage": torch.qint8,
    "QUInt2x4Storage": torch.quint2x4,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt8Storage": torch.quint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True)
class Reference:
    """What a pickle says of one storage; `start` and `count` are elements of what lies under `key`."""

    key: str
    dtype: torch.dtype
    # Elements under the key, and the part of them that is meant.
    whole: int
    start: int
    count: int


def reference_of(stored: Stored) -> Reference:
    """The reference that torch.save wrote. Raises: ValueError for any other."""
    found = stored.reference
    if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
        raise ValueError("a reference to data that is no tensor's")
    _, storage, key, _, whole = found[:5]
    package, _, kind = (storage.name if isinstance(storage, Named) else "").rpartition(".")
    if package not in ("torch", "torch.storage") or kind not in STORAGES:
        raise ValueError(f"a reference to data of type {kind[:40]!r}")
    if not isinstance(key, str) or type(whole) is not int or whole < 0:
        raise ValueError("a reference to tensor data without a name or a size")
    start, count = 0, whole
    if len(found) == 6 and found[5] is not None:  # part of a storage, by torch before 0.4
        view = found[5]
        if not isinstance(view, tuple) or len(view) != 3 or any(type(n) is not int for n in view[1:]):
            raise ValueError(f"tensor data {key[:40]!r} is a damaged part of another")
        start, count = view[1:]
        if start < 0 or count < 0 or start + count > whole:
            raise ValueError(f"tensor data {key[:40]!r} ends behind what it is part of")
    return Reference(key, STORAGES[kind], whole, start, count)


def _is_source_text(stored: Stored) -> bool:
    return isinstance(stored.reference, tuple) and stored.reference[:1] == ("module",)


class Records:
    """An open file. `mapped` leaves the data in the file until they are used.

    Raises: ValueError, KeyError and the like where the file is damaged.
    """

    def __init__(self, path: Path, *, mapped: bool = False) -> None:
        self.size = path.stat().st_size
        self._path, self._mapped = path, mapped
        self._file: IO[bytes] = path.open("rb")
        self._places: dict[str, tuple[int, int]] = {}
        self._read: dict[str, torch.UntypedStorage] = {}
        self._swapped = False
        self._map: torch.UntypedStorage | None = None
        # Whether it has a whole module with its source text, as torch before 1.6 wrote them.
        self.holds_source = False
        try:
            self.pickled: Scan = self._scan_archive() if is_archive(path) else self._scan_old()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def storage(self, reference: Reference) -> torch.UntypedStorage:
        """The bytes that are meant; references to one storage share its memory."""
        width = reference.dtype.itemsize
        if reference.key not in self._read:
            self._read[reference.key] = self._stored(reference)
        whole = self._read[reference.key]
        if (reference.start, reference.count) == (0, reference.whole):
            return whole
        return whole[reference.start * width : (reference.start + reference.count) * width]

    def _stored(self, reference: Reference) -> torch.UntypedStorage:
        start, size = self._places[reference.key]
        width = reference.dtype.itemsize
        if self._mapped and not self._swapped and start % width == 0 and size:
            if self._map is None:
                whole = torch.UntypedStorage.from_file(str(self._path), False, self.size)
                self._map = cast(torch.UntypedStorage, whole)
            storage = self._map[start : start + size]
        else:
            data = torch.empty(size, dtype=torch.uint8)
            self._file.seek(start)
            if self._file.readinto(data.numpy()) != size:  # type: ignore[attr-defined]
                raise ValueError(f"tensor data {reference.key} is cut short")
            storage = data.untyped_storage()
            if self._swapped:
                storage.byteswap(reference.dtype)
        if reference.dtype == torch.bool and size:
            flags = torch.empty(0, dtype=torch.uint8).set_(storage)
            if int(flags.max()) > 1:  # torch counts on it
                raise ValueError(f"tensor data {reference.key} holds truth values that are neither 0 nor 1")
        return storage

    def _scan_archive(self) -> Scan:
        with zipfile.ZipFile(self._file) as archive:
            listed = archive.infolist()
        folders = {entry.filename.partition("/")[0] for entry in listed if "/.data/" not in entry.filename}
        entries = {entry.filename.partition("/")[2]: entry for entry in listed}
        if len(entries) != len(listed):
            raise ValueError("two of its records have one name")
        if len(folders) != 1:
            raise ValueError("its records are not in one folder")
        pickled = self._content(entries["data.pkl"])
        if entries["data.pkl"].CRC not in (0, zlib.crc32(pickled)):
            raise ValueError("the checksum of its pickle is wrong")
        if "byteorder" in entries and entries["byteorder"].file_size < 16:
            self._swapped = self._content(entries["byteorder"]) == b"big"
        found = scan(io.BytesIO(pickled))
        for reference in map(reference_of, found.stored):
            entry = entries.get(f"data/{reference.key}")
            if entry is None or entry.file_size != reference.whole * reference.dtype.itemsize:
                raise ValueError(f"tensor data {reference.key[:40]} is missing or cut short")
            if reference.key not in self._places:
                self._places[reference.key] = (self._start(entry), entry.file_size)
        end = 0
        for start, size in sorted(self._places.values()):
            if start < end:
                raise ValueError("its records lie one upon another")
            end = start + size
        return found

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where a record begins, that lies in the file as it is."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"its record {entry.filename[:80]!r} is compressed, which torch.save never does")
        start = record_start(self._file, entry)
        if start + entry.file_size > self.size:
            raise ValueError(f"its record {entry.filename[:80]!r} is cut short")
        return start

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        self._file.seek(self._start(entry))
        return self._file.read(entry.file_size)

    def _scan_old(self) -> Scan:
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            head = [scan(data).root for _ in range(3)]  # type: ignore[arg-type]
            if type(head[0]) is not int or head[:2] != [OLD_MAGIC, OLD_PROTOCOL]:
                raise ValueError("it does not begin as a file of torch.save")
            if not isinstance(head[2], Pairs):
                raise ValueError("it does not say what machine it was made on")
            found = scan(data)  # type: ignore[arg-type]
            references: dict[str, Reference] = {}
            data_references = [stored for stored in found.stored if not _is_source_text(stored)]
            self.holds_source = len(data_references) < len(found.stored)
            for reference in map(reference_of, data_references):
                known = references.setdefault(reference.key, reference)
                if (known.dtype, known.whole) != (reference.dtype, reference.whole):
                    raise ValueError(f"tensor data {reference.key[:40]!r} has two types or sizes")
            keys = scan(data).root  # type: ignore[arg-type]
            place = data.tell()
        if not isinstance(keys, list) or len(keys) != len(references):
            raise ValueError("its list of tensor data is damaged")
        for key in keys:
            if not isinstance(key, str) or key not in references or key in self._places:
                raise ValueError("its list of tensor data does not agree with its pickle")
            size = references[key].whole * references[key].dtype.itemsize
            self._file.seek(place)
            count = int.from_bytes(self._file.read(8), "little")
            if count != references[key].whole or place + 8 + size > self.size:
                raise ValueError(f"tensor data {key[:40]} is missing or cut short")
            self._places[key] = (place + 8, size)
            place += 8 + size
        return found
