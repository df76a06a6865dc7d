"""Reads `torch.save` files without running code from them.

A pickle may name any importable function and call it. So a file is first read inertly (`pickle_scan`), which
shows what it names and what it calls. Then `torch.load(weights_only=True)` reads it with what `allow_list`
permits. Modules are made empty and filled with their attributes, never called: a constructor may do more than
that. Everything else is refused by name. This narrows what a file can do; it proves nothing about its weights.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn, serialization

from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources import allow_list
from binarize.sources.files import LEGACY_MAGIC, is_archive, record_start
from binarize.sources.float_check import quantizer_of
from binarize.sources.pickle_scan import Named, Scan, scan

__all__ = [
    "DAMAGE",
    "allowed_globals",
    "first_line",
    "load_pickle_safely",
    "load_trusted",
    "load_with_stand_ins",
    "refusal",
    "refused_globals",
]

# Bytes an element of the typed storages; the others count bytes.
WIDTHS = {"BFloat16": 2, "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Float": 4, "Half": 2}
WIDTHS |= {"Int": 4, "Long": 8, "QInt32": 4, "Short": 2}
# What torch reads by itself, as old files spell it; torch has the last word on them.
TORCH_OWN = re.compile(
    r"torch\.\w+|torch\.(storage|_utils|_tensor|nn\.parameter)\.\w+"
    r"|collections\.(OrderedDict|Counter)|builtins\.(set|complex|bytearray)|_codecs\.encode"
)

# What reading a damaged file can raise.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Permission:
    """What the allow-list says of one file: what to allow, and the names it refuses, called or only made."""

    allowed: list[Any]
    accepted: list[str]
    called: list[str]
    foreign: list[str]


def load_pickle_safely(path: str | Path, *, mmap: bool = False) -> object:
    """What a file of `torch.save` holds, on the CPU, without running code from it.

    `mmap` leaves the tensors in the file until they are used.

    Raises: UntrustedSourceError naming what is not allowed, SourceError where the file is damaged.
    """
    content, foreign = load_with_stand_ins(path, mmap=mmap)
    if foreign:
        raise UntrustedSourceError(refusal(path, [], foreign))
    return content


def load_with_stand_ins(path: str | Path, *, mmap: bool = False) -> tuple[object, list[str]]:
    """The same, but with inert objects where the file has objects of foreign classes; and their names.

    Raises: UntrustedSourceError where the file calls what is not allowed, SourceError where it is damaged.
    """
    found = _scan(Path(path))
    permission = _permission(path, found)
    if permission.called:
        raise UntrustedSourceError(refusal(path, permission.called, permission.foreign))
    archive = is_archive(path)
    if not archive and any(_names_a_class(stored.reference) for stored in found.stored):
        raise UntrustedSourceError(_only_by_running(path, "a whole module in the format of torch before 1.6"))
    stand_ins = [(allow_list.stand_in(), name) for name in permission.foreign]
    with _allowing([*permission.allowed, *stand_ins]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about storage classes and protocols: nothing the user can change
        try:
            content = _load(Path(path), mmap and archive)
        except pickle.UnpicklingError as error:
            if permission.foreign:
                raise UntrustedSourceError(refusal(path, [], permission.foreign)) from error
            raise SourceError(f"{path}: {_unpickling_reason(error)}") from error
        except DAMAGE as error:
            raise SourceError(f"{path}: damaged: {first_line(error)}") from error
    return content, permission.foreign


def _load(path: Path, mmap: bool) -> object:
    if path.suffix != ".safetensors":
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    with path.open("rb") as file:  # by its name torch would take it for something else than it is
        return torch.load(file, map_location="cpu", weights_only=True)


def load_trusted(path: str | Path) -> tuple[object, list[str]]:
    """What a file holds, running whatever it says, and the names that were trusted. Only for `--trust-pickle`."""
    with Path(path).open("rb") as file:
        plain = not is_archive(path) and LEGACY_MAGIC not in file.read(64)
        file.seek(0)
        try:
            found = scan(file) if plain else _scan(Path(path))
            file.seek(0)
            content = pickle.load(file) if plain else torch.load(file, map_location="cpu", weights_only=False)
        except Exception as error:  # code from the file: it may raise anything
            raise SourceError(f"{path}: cannot be unpickled: {first_line(error)}") from error
    foreign = {name for name in found.names if not TORCH_OWN.fullmatch(name) and not allow_list.resolve(name)}
    return content, sorted(foreign)


def allowed_globals(path: str | Path) -> list[str]:
    """The names in a file, beyond what torch reads by itself, that the allow-list accepts."""
    return _permission(path, _scan(Path(path))).accepted


def refused_globals(path: str | Path) -> list[str]:
    """The names in a file that the allow-list refuses: what `--trust-pickle` trusts."""
    permission = _permission(path, _scan(Path(path)))
    return sorted([*permission.called, *permission.foreign])


def refusal(path: str | Path, called: list[str], foreign: list[str]) -> str:
    """The message for names that are not allowed, with the ways out."""
    quantizer = next((name for name in (*foreign, *called) if quantizer_of(name)), None)
    if quantizer is not None:
        return f"{path}: already quantized (it needs {quantizer}); give the float model it was made from"
    if any(name.startswith("binarize.") for name in foreign):
        return f"{path}: already binarized; give the float model it was made from"
    trust = "add --trust-pickle if you trust whoever made the file"
    if called:
        return (
            f"{path}: loading it would run code: it calls {_few(called)}. A state dict needs none: get one "
            f"(then --arch module.py:make_model), or {trust}"
        )
    return (
        f"{path}: loading it would import {_few(foreign)}, which is beyond the modules of torch.nn, torchvision "
        "and timm. Name code that builds the model, as in --arch module.py:make_model, to take only the weights "
        f"from the file; or {trust}"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _scan(path: Path) -> Scan:
    """The pickle in a file, read inertly; the storages it refers to must fit the file."""
    try:
        if is_archive(path):
            return _scan_archive(path)
        with path.open("rb") as file:
            for _ in range(3):  # magic number, protocol and machine: what precedes the object in old files
                scan(file)
            found = scan(file)
        _check_sizes(found, path.stat().st_size)
        return found
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise SourceError(f"{path}: damaged: {first_line(error)}") from error


def _scan_archive(path: Path) -> Scan:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("two of its records have one name")
    entry = entries["data.pkl"]
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its pickle is compressed, which torch.save never does")
    with path.open("rb") as raw:
        raw.seek(record_start(raw, entry))
        pickled = raw.read(entry.file_size)
    if entry.CRC not in (0, zlib.crc32(pickled)):
        raise ValueError("the checksum of its pickle is wrong")
    found = scan(io.BytesIO(pickled))
    for stored in found.stored:
        _, key, count, width = _storage(stored.reference)
        if f"data/{key}" not in entries or entries[f"data/{key}"].file_size != count * width:
            raise ValueError(f"tensor data {key} is missing or cut short")
    return found


def _check_sizes(found: Scan, size: int) -> None:
    for stored in found.stored:
        if _names_a_class(stored.reference):
            continue
        _, key, count, width = _storage(stored.reference)
        if not 0 <= count * width <= size:
            raise ValueError(f"tensor data {key} is larger than the file")


def _names_a_class(reference: object) -> bool:
    return isinstance(reference, tuple) and reference[:1] == ("module",)


def _storage(reference: object) -> tuple[str, str, int, int]:
    """Kind, key, number of elements and bytes an element of a reference that torch.save wrote."""
    kind, storage, key, _, count = reference[:5]  # type: ignore[index]
    name = storage.name if isinstance(storage, Named) else ""
    package, _, attribute = name.rpartition(".")
    if kind != "storage" or not attribute.endswith("Storage") or package not in ("torch", "torch.storage"):
        raise ValueError(f"a reference to {kind!r} data of type {name!r}")
    return kind, key, int(count), WIDTHS.get(attribute.removesuffix("Storage"), 1)


def _permission(path: str | Path, found: Scan) -> _Permission:
    permission = _Permission([], [], [], [])
    for name in sorted(_beyond_torch(path, found)):
        resolved = allow_list.resolve(name)
        called = name in found.called
        if resolved and not (called and isinstance(resolved[0], type) and issubclass(resolved[0], nn.Module)):
            first, *companions = resolved
            permission.allowed.extend([(first, name), *companions])
            permission.accepted.append(name)
        else:
            (permission.called if called else permission.foreign).append(name)
    return permission


def _beyond_torch(path: str | Path, found: Scan) -> set[str]:
    """The names that torch does not read by itself."""
    if not is_archive(path):
        return {name for name in found.names if not TORCH_OWN.fullmatch(name)}
    try:
        return found.names.intersection(serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except pickle.UnpicklingError as error:
        if found.protocol > 2:
            what = f"written with pickle protocol {found.protocol}"
            raise UntrustedSourceError(_only_by_running(path, what)) from error
        raise SourceError(f"{path}: damaged: {first_line(error)}") from error
    except DAMAGE as error:
        raise SourceError(f"{path}: damaged: {first_line(error)}") from error


@contextmanager
def _allowing(allowed: list[Any]) -> Iterator[None]:
    """Allows `allowed` inside the block, and leaves alone what the user had allowed before."""
    before = serialization.get_safe_globals()
    with serialization.safe_globals([item for item in allowed if item not in before]):
        yield


def _only_by_running(path: str | Path, what: str) -> str:
    return (
        f"{path}: {what}, which cannot be read without running code; load it where it was made and save it "
        "again with torch.save(model, PATH), or add --trust-pickle if you trust whoever made the file"
    )


def _unpickling_reason(error: pickle.UnpicklingError) -> str:
    """What torch refused, without its advice about `weights_only`."""
    reason = re.search(r"error: (.*)", str(error))
    return f"damaged, or outside of what can be read safely: {reason[1] if reason else first_line(error)}"


def _few(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
