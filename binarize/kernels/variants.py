"""Finds the native kernels and says which variant of them runs.

The environment variable BINARIZE_KERNELS, read once, forces one: `avx512`, `avx2`, `neon`, `scalar`, or
`reference` for plain torch. Without it the best variant that this processor has is taken. Where the extension
was not built, packed layers run through the reference, and a warning says so when the first one does. Training does
not need the kernels: there their absence is no news.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from binarize.errors import UsageError, did_you_mean

__all__ = ["Variant", "active", "native", "use", "variants"]

REFERENCE = "reference"
_forced: list[Variant | None] = []


@dataclass(frozen=True)
class Variant:
    """One set of kernels: its number in the extension, and how it wants weights laid out."""

    index: int
    name: str
    layout: str
    lanes: int
    masked_lanes: int
    float_lanes: int
    """Filters of a block of a float convolution; 0 where there is none."""


@lru_cache(maxsize=1)
def native() -> ModuleType | None:
    """The extension module, or None where it was not built."""
    try:
        from binarize.kernels import _native  # type: ignore[attr-defined]
    except ImportError:
        return None
    return _native if sys.byteorder == "little" else None


@lru_cache(maxsize=1)
def variants() -> tuple[Variant, ...]:
    """The variants that this processor can run, best first."""
    module = native()
    return () if module is None else tuple(Variant(i, *row) for i, row in enumerate(module.variants()))


def active(*, needed: bool = True) -> Variant | None:
    """The variant that runs now; None means the reference, with a warning if that is `needed` for want of another.

    Raises: UsageError if BINARIZE_KERNELS names one that is unknown or that this processor lacks.
    """
    if _forced:
        return _forced[-1]
    if needed and native() is None and os.environ.get("BINARIZE_KERNELS") != REFERENCE:
        _warn_once()
    return _default()


@lru_cache(maxsize=1)
def _warn_once() -> None:
    warnings.warn(
        "the native kernels are not built; packed layers run through plain torch, slowly. A C compiler and "
        "`pip install --force-reinstall --no-deps torch-binarize` (or, in a checkout, "
        "`python setup.py build_ext --inplace`) bring them.",
        RuntimeWarning,
        stacklevel=3,
    )


@contextmanager
def use(name: str) -> Iterator[None]:
    """Runs the block with the named variant, or with `reference`.

    Example:
        >>> with use("reference"):
        ...     active() is None
        True
    """
    _forced.append(_find(name))
    try:
        yield
    finally:
        _forced.pop()


@lru_cache(maxsize=1)
def _default() -> Variant | None:
    return _find(os.environ.get("BINARIZE_KERNELS", ""))


def _find(name: str) -> Variant | None:
    if name == REFERENCE:
        return None
    found = variants()
    if not name:
        return found[0] if found else None
    for variant in found:
        if variant.name == name:
            return variant
    known = [*(variant.name for variant in found), REFERENCE]
    raise UsageError(f"kernels {name!r}: this machine has {', '.join(known)}{did_you_mean(name, known)}")
