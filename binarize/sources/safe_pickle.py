"""Reads pickles without running code from them.

A pickle is a program: it may name any importable function and call it. Here the names in a file are listed
first, without unpickling. Then `torch.load(weights_only=True)` reads the file with an allow-list: classes of
`torch.nn`, `torchvision` and `timm` that are modules or enumerations, and the few names in `PLAIN` and
`BY_PATH`. Everything else is refused.

This narrows what a file can do; it proves nothing about the weights themselves.
"""

from __future__ import annotations

import argparse
import enum
import functools
import importlib
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn, serialization

from binarize.errors import SourceError, UntrustedSourceError

__all__ = ["DAMAGE", "MODULE_PACKAGES", "allowed_globals", "load_pickle_safely", "module_globals"]

MODULE_PACKAGES = ("torch.nn", "torchvision", "timm")

# Modules whose reconstruction starts processes or compiles source text.
REFUSED_BASES = ("torch.fx.graph_module.GraphModule", "torch.jit._script.ScriptModule")
REFUSED_CLASSES = ("torch.nn.parallel.distributed.DistributedDataParallel",)

# Functions and classes beside modules that are harmless whatever their arguments.
PLAIN: dict[str, object] = {
    "argparse.Namespace": argparse.Namespace,
    "functools.partial": functools.partial,
}
BY_PATH = (
    "torch.nn.functional.relu",
    "torch.nn.functional.gelu",
    "torchvision.ops.boxes.box_iou",
)

# What reading a damaged file can raise, beside the pickle module's own errors.
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
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
    zipfile.BadZipFile,
)


def module_globals(names: list[str]) -> tuple[list[Any], list[str]]:
    """The allowed objects among `names`, and the names that are not allowed."""
    allowed: list[Any] = []
    refused: list[str] = []
    for name in sorted(names):
        found = _resolve(name)
        if found is None:
            refused.append(name)
        else:
            allowed.append(found)
    return allowed, refused


def allowed_globals(path: str | Path) -> list[str]:
    """The names in a file beyond plain tensors that the allow-list accepts."""
    names = serialization.get_unsafe_globals_in_checkpoint(str(path))
    return [name for name in sorted(names) if _resolve(name) is not None]


def load_pickle_safely(path: str | Path, *, mmap: bool = False) -> object:
    """What a `torch.save` file holds, on the CPU, read by the allow-list.

    Raises: UntrustedSourceError naming what is not allowed, SourceError when the file is damaged.
    """
    try:
        names = serialization.get_unsafe_globals_in_checkpoint(str(path))
    except DAMAGE as error:
        raise SourceError(f"{path}: damaged or not a torch.save file: {_first_line(error)}") from error
    allowed, refused = module_globals(names)
    if refused:
        raise UntrustedSourceError(refusal(path, refused))
    with _safe_globals(allowed):
        try:
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
        except DAMAGE as error:
            raise SourceError(f"{path}: damaged: {_first_line(error)}") from error


def refusal(path: str | Path, names: list[str]) -> str:
    """The message for names that are not allowed, with the two ways out."""
    return (
        f"{path}: loading it would import or call {', '.join(names)}, which is outside the allow-list "
        f"(modules of {', '.join(MODULE_PACKAGES)}). Ways out: name code of your own that builds the model, "
        "as in module.py:make_model, or add --trust-pickle if you trust whoever made the file"
    )


@contextmanager
def _safe_globals(allowed: list[Any]) -> Iterator[None]:
    """Allows `allowed` inside the block, and leaves alone what the user had allowed before."""
    before = serialization.get_safe_globals()
    with serialization.safe_globals([item for item in allowed if item not in before]):
        yield


def _resolve(name: str) -> object | None:
    """The object a name stands for if it is allowed, importing only modules of the three packages."""
    if name in PLAIN:
        return PLAIN[name]
    path, _, attribute = name.rpartition(".")
    if not any(path == package or path.startswith(f"{package}.") for package in MODULE_PACKAGES):
        return None
    try:
        found = getattr(importlib.import_module(path), attribute, None)
    except ImportError:
        return None
    if name in BY_PATH:
        return found
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != name:
        return None
    if issubclass(found, enum.Enum):
        return found
    if not issubclass(found, nn.Module) or name in REFUSED_CLASSES:
        return None
    bases = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
    return None if bases & set(REFUSED_BASES) else found


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
