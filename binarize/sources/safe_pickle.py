"""Reads `torch.save` files without running code from them.

A pickle may name any importable function and call it. So a file is first read inertly (`pickle_scan`), which
shows what it names and what it calls. Then `torch.load(weights_only=True)` reads it with an allow-list:

- plain tensors and containers, as torch allows by itself;
- classes of `torch.nn`, `torchvision` and `timm` that are modules or enumerations; they are made empty and
  filled with their attributes, never called, since a constructor may do more than that;
- the few names of `PLAIN_CLASSES`, `numpy` scalars and arrays, and `HARMLESS`.

Everything else is refused by name. This narrows what a file can do; it proves nothing about its weights.
"""

from __future__ import annotations

import argparse
import enum
import functools
import importlib
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn, serialization

from binarize.errors import SourceError, UntrustedSourceError
from binarize.sources.pickle_scan import Named, Scan, scan

__all__ = ["DAMAGE", "allowed_globals", "first_line", "load_pickle_safely", "load_trusted", "refused_globals"]

PACKAGES = ("torch.nn", "torchvision", "timm")
REFUSED_CLASSES = ("torch.nn.parallel.distributed.DistributedDataParallel",)  # joins a process group
REFUSED_BASES = ("torch.fx.graph_module.GraphModule", "torch.jit._script.ScriptModule")  # compile source text

# Classes of the standard library that training scripts put beside the weights. Paths become pure paths.
PLAIN_CLASSES: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "functools.partial": functools.partial,
    "pathlib.PosixPath": pathlib.PurePosixPath,
    "pathlib.WindowsPath": pathlib.PureWindowsPath,
}
# Functions and plain classes of the three packages that their own models refer to.
HARMLESS = (
    "torch.nn.functional.gelu",
    "torch.nn.functional.relu",
    "torchvision.models.detection._utils.BalancedPositiveNegativeSampler",
    "torchvision.models.detection._utils.BoxCoder",
    "torchvision.models.detection._utils.BoxLinearCoder",
    "torchvision.models.detection._utils.Matcher",
    "torchvision.models.detection._utils.SSDMatcher",
    "torchvision.models.optical_flow.raft._pass_through_h",
    "torchvision.ops.boxes.box_iou",
)
# Both spellings: files written under numpy 1 and numpy 2.
NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
NUMPY_FUNCTIONS = ("scalar", "_reconstruct")
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
    called: list[str]
    unknown: list[str]


def load_pickle_safely(path: str | Path, *, mmap: bool = False) -> object:
    """What a file of `torch.save` holds, on the CPU, without running code from it.

    `mmap` leaves the tensors in the file until they are used.

    Raises: UntrustedSourceError naming what is not allowed, SourceError where the file is damaged.
    """
    found = _scan(Path(path))
    permission = _permission(path, found)
    if permission.called or permission.unknown:
        raise UntrustedSourceError(_refusal(path, permission))
    archive = zipfile.is_zipfile(path)
    if not archive and any(_names_a_class(stored.reference) for stored in found.stored):
        raise UntrustedSourceError(_only_by_running(path, "a whole module in the format of torch before 1.6"))
    with _allowing(permission.allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about storage classes and protocols: nothing the user can change
        try:
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap and archive)
        except pickle.UnpicklingError as error:
            raise UntrustedSourceError(f"{path}: {_unpickling_reason(error)}") from error
        except DAMAGE as error:
            raise SourceError(f"{path}: damaged: {first_line(error)}") from error


def load_trusted(path: str | Path) -> object:
    """What a file holds, running whatever it says. Only for `--trust-pickle`."""
    try:
        with Path(path).open("rb") as file:
            plain = not zipfile.is_zipfile(file) and b"\x8a\nl\xfc\x9cF" not in _head(file)
            file.seek(0)
            return pickle.load(file) if plain else torch.load(file, map_location="cpu", weights_only=False)
    except DAMAGE as error:
        raise SourceError(f"{path}: cannot be unpickled: {first_line(error)}") from error


def allowed_globals(path: str | Path) -> list[str]:
    """The names in a file, beyond what torch reads by itself, that the allow-list accepts."""
    return sorted(name for _, name in _permission(path, _scan(Path(path))).allowed)


def refused_globals(path: str | Path) -> list[str]:
    """The names in a file that the allow-list refuses: what `--trust-pickle` trusts."""
    permission = _permission(path, _scan(Path(path)))
    return sorted([*permission.called, *permission.unknown])


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _scan(path: Path) -> Scan:
    """The pickle in a file, read inertly, with the storages it refers to checked against the file's size."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _scan_archive(path)
            for _ in range(3):  # magic number, protocol and machine: what precedes the object in old files
                scan(file)
            found = scan(file)
            _check_sizes(found, path.stat().st_size)
            return found
    except DAMAGE as error:
        raise SourceError(f"{path}: damaged: {first_line(error)}") from error


def _scan_archive(path: Path) -> Scan:
    with zipfile.ZipFile(path) as archive:
        sizes = {name.partition("/")[2]: archive.getinfo(name).file_size for name in archive.namelist()}
        entry = next(entry for entry in archive.infolist() if entry.filename.partition("/")[2] == "data.pkl")
        if entry.file_size > path.stat().st_size:
            raise ValueError("its pickle unpacks to more than the file")
        with archive.open(entry) as file:
            found = scan(file)
    for stored in found.stored:
        _, key, count, width = _storage(stored.reference)
        if sizes.get(f"data/{key}") != count * width:
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
    allowed: list[Any] = []
    called: list[str] = []
    unknown: list[str] = []
    for name in sorted(_beyond_torch(path, found)):
        resolved = _resolve(name)
        if resolved is None:
            (called if name in found.called else unknown).append(name)
        elif isinstance(resolved, type) and issubclass(resolved, nn.Module) and name in found.called:
            called.append(name)
        else:
            allowed.append((resolved, name))
    return _Permission(allowed, called, unknown)


def _beyond_torch(path: str | Path, found: Scan) -> set[str]:
    """The names that torch does not read by itself."""
    if not zipfile.is_zipfile(path):
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


def _resolve(name: str) -> Any:
    """The object a name stands for if it is allowed, else None. Imports only from the three packages."""
    if name in PLAIN_CLASSES:
        return PLAIN_CLASSES[name]
    path, _, attribute = name.rpartition(".")
    if path.partition(".")[0] == "numpy":
        return _resolve_numpy(path, attribute)
    if not any(path == package or path.startswith(f"{package}.") for package in PACKAGES):
        return None
    try:
        found = getattr(importlib.import_module(path), attribute, None)
    except (ImportError, ValueError):
        return None
    if name in HARMLESS:
        return found
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != name:
        return None
    if issubclass(found, enum.Enum):
        return found
    bases = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
    if not issubclass(found, nn.Module) or name in REFUSED_CLASSES or bases.intersection(REFUSED_BASES):
        return None
    return found


def _resolve_numpy(path: str, attribute: str) -> Any:
    import numpy as np

    if path in NUMPY_MODULES and attribute in NUMPY_FUNCTIONS:
        try:
            return getattr(importlib.import_module("numpy._core.multiarray"), attribute)
        except ImportError:
            return getattr(importlib.import_module("numpy.core.multiarray"), attribute)
    if path == "numpy" and attribute in ("ndarray", "dtype"):
        return getattr(np, attribute)
    if path == "numpy.dtypes":
        found = getattr(np.dtypes, attribute, None)
        return found if isinstance(found, type) and issubclass(found, np.dtype) else None
    return None


@contextmanager
def _allowing(allowed: list[Any]) -> Iterator[None]:
    """Allows `allowed` inside the block, and leaves alone what the user had allowed before."""
    before = serialization.get_safe_globals()
    with serialization.safe_globals([item for item in allowed if item not in before]):
        yield


def _refusal(path: str | Path, permission: _Permission) -> str:
    """The message for names that are not allowed, with the two ways out."""
    parts = []
    if permission.called:
        parts.append(f"run code: it calls {_few(permission.called)}")
    if permission.unknown:
        parts.append(f"import {_few(permission.unknown)}, which are not modules of {', '.join(PACKAGES)}")
    return (
        f"{path}: loading it would {' and '.join(parts)}. Name code of your own that builds the model, as in "
        "module.py:make_model (with this file's state dict and --arch module.py:make_model), or add "
        "--trust-pickle if you trust whoever made the file"
    )


def _only_by_running(path: str | Path, what: str) -> str:
    return (
        f"{path}: {what}, which cannot be read without running code; load it where it was made and save it "
        "again with torch.save(model, PATH), or add --trust-pickle if you trust whoever made the file"
    )


def _unpickling_reason(error: pickle.UnpicklingError) -> str:
    """What torch refused, without its advice about `weights_only`."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return f"loading it would run code: it uses {named[1]}" if named else f"damaged: {first_line(error)}"


def _few(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _head(file: Any) -> bytes:
    file.seek(0)
    return file.read(64)
