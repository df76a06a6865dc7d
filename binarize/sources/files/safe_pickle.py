"""Reads `torch.save` files without running code from them.

A pickle may name any importable function and call it. So a file is only read inertly (`pickle_scan`), which shows
what it names and what it calls. Then objects are made of that by makers of our own (`rebuild`), of classes that
`allow_list` permits: neither Python's nor torch's unpickler sees the file. Everything else is refused by name. This
narrows what a file can do; it proves nothing about its weights.
"""

from __future__ import annotations

import enum
import gc
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from binarize.errors import SourceError, UntrustedSourceError
from binarize.modules.float_check import quantizer_of
from binarize.sources.files.kinds import LEGACY_MAGIC, is_archive, refuse_irregular
from binarize.sources.files.pickles import allow_list
from binarize.sources.files.pickles.instance_dicts import HostileObject
from binarize.sources.files.pickles.pickle_scan import Scan, scan
from binarize.sources.files.pickles.plain_makers import PLAIN, constant
from binarize.sources.files.pickles.rebuild import Rebuild
from binarize.sources.files.pickles.records import STORAGES, Records
from binarize.sources.files.pickles.stored_tensors import MAKERS, QUANTIZED

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

CALLED = frozenset({*PLAIN, *MAKERS})
# What files name without calling it.
NAMED = frozenset({"numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter"})

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

    allowed: dict[str, Any]
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
    refuse_irregular(Path(path))
    try:
        with _no_collection(), Records(Path(path), mapped=mmap) as records:
            permission = _permission(records.pickled)
            if permission.called:
                raise UntrustedSourceError(refusal(path, permission.called, permission.foreign))
            if records.holds_source:
                raise UntrustedSourceError(
                    _only_by_running(path, "a whole module in the format of torch before 1.6")
                )
            content = Rebuild(records, permission.allowed).of(records.pickled.root)
    except HostileObject as error:
        raise UntrustedSourceError(
            f"{path}: loading it could run code: {error}; no file that was saved honestly has this"
        ) from error
    except DAMAGE as error:
        raise _damaged(path, error) from error
    return content, permission.foreign


def load_trusted(path: str | Path) -> tuple[object, list[str]]:
    """What a file holds, running whatever it says, and the names that were trusted. Only for `--trust-pickle`."""
    refuse_irregular(Path(path))
    with Path(path).open("rb") as file:
        plain = not is_archive(path) and LEGACY_MAGIC not in file.read(64)
        file.seek(0)
        try:
            found = scan(file) if plain else _scan(path)
            file.seek(0)
            content = pickle.load(file) if plain else torch.load(file, map_location="cpu", weights_only=False)
        except Exception as error:  # code from the file: it may raise anything
            way = "\n  name its folder in PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
            raise SourceError(f"{path}: cannot be unpickled: {first_line(error)}{way}") from error
    return content, [
        name for name in sorted(found.names) if not _is_known(name) and not allow_list.resolve(name)
    ]


def allowed_globals(path: str | Path) -> list[str]:
    """The names in a file, beyond what torch's files are made of, that the allow-list accepts."""
    return sorted(_permission(_scan(path)).allowed)


def refused_globals(path: str | Path) -> list[str]:
    """The names in a file that the allow-list refuses: what `--trust-pickle` trusts."""
    permission = _permission(_scan(path))
    return sorted([*permission.called, *permission.foreign])


def refusal(path: str | Path, called: list[str], foreign: list[str]) -> str:
    """The message for names that are not allowed, with the ways out."""
    quantizer = next((name for name in (*foreign, *called) if quantizer_of(name)), None)
    if quantizer is not None or QUANTIZED in called:
        why = f"it needs {quantizer}" if quantizer else "it holds quantized tensors"
        return f"{path}: already quantized ({why}); give the float model it was made from"
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


def _scan(path: str | Path) -> Scan:
    """The pickle in a file, read inertly; the storages it refers to must fit the file."""
    refuse_irregular(Path(path))
    try:
        with _no_collection(), Records(Path(path)) as records:
            return records.pickled
    except DAMAGE as error:
        raise _damaged(path, error) from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the search for circles, whose time grows with the square of what is made here; there are none."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def _damaged(path: str | Path, error: Exception) -> SourceError:
    if isinstance(error, OSError):
        return SourceError(f"{path}: cannot be read: {error.strerror or error}")
    return SourceError(f"{path}: damaged: {first_line(error)}")


def _permission(found: Scan) -> _Permission:
    permission = _Permission({}, [], [])
    for name in sorted(name for name in found.names if not _is_known(name)):
        resolved, called = allow_list.resolve(name), name in found.called
        is_made = isinstance(resolved, type) and issubclass(resolved, enum.Enum) == called
        if resolved is not None and (is_made or not (called or isinstance(resolved, type))):
            permission.allowed[name] = resolved
        else:
            (permission.called if called else permission.foreign).append(name)
    odd = (
        name for name in found.called if name not in found.names or (_is_known(name) and name not in CALLED)
    )
    permission.called.extend(sorted(odd))
    return permission


def _is_known(name: str) -> bool:
    """Whether the name is one of those that the makers know, or of a type of torch."""
    package, _, kind = name.rpartition(".")
    is_storage = package in ("torch", "torch.storage") and kind in STORAGES
    return name in CALLED or name in NAMED or is_storage or constant(name) is not None


def _only_by_running(path: str | Path, what: str) -> str:
    return (
        f"{path}: {what}, which cannot be read without running code; load it where it was made and save it "
        "again with torch.save(model, PATH), or add --trust-pickle if you trust whoever made the file"
    )


def _few(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
