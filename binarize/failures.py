"""Failures of files, devices and memory, and of the user's own code, in words and with an exit code."""

from __future__ import annotations

import errno
import re
import sys
import sysconfig
import traceback
from pathlib import Path

from binarize.errors import BinarizeError, CaptureError, ResourceError, SourceError, UsageError

__all__ = ["in_words", "is_lost_worker"]

_PACKAGE = str(Path(__file__).parent)
# Where installed packages and Python's own modules lie.
_INSTALLED = tuple(
    {sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")} | {sys.prefix + "/lib"}
)
# Folders of packages elsewhere, which a .pth file or PYTHONPATH names.
_PACKAGES = frozenset(("site-packages", "dist-packages"))
_WAYS = {
    errno.ENOSPC: "make room, or name a place on another disk",
    errno.EDQUOT: "make room, or name a place on another disk",
    errno.EMFILE: "too many files are open at once: raise the limit (ulimit -n), or use fewer workers",
    errno.ENFILE: "too many files are open at once: raise the limit (ulimit -n), or use fewer workers",
}
_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "Cannot allocate memory")
# What torch says of a worker of a DataLoader that is no more.
_WORKER = re.compile(
    r"DataLoader worker \(pid\S* [\d, ]+\) (?:is (killed by signal: \w+)|exited unexpectedly)"
)
_NO_DEVICE = (
    "Torch not compiled with",
    "Invalid device string",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver",
    "invalid device ordinal",
    "Expected one of cpu, cuda",
    "PyTorch is not linked with support for",
)


def in_words(error: Exception) -> BinarizeError | None:
    """The project's error for a failure that is none of ours; None for a fault of our own."""
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return _memory(first)
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY):
        return _memory(first)
    if isinstance(error, RuntimeError) and (died := _WORKER.search(text)):
        return ResourceError(
            f"a process that reads images ended: {died[1] or 'it did not say why'}\n"
            "  it may have needed too much memory; --workers 0 reads images in the command's own process"
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        way = _WAYS.get(error.errno or 0)
        return ResourceError(f"{where}{error.strerror or first}" + (f"\n  {way}" if way else ""))
    if isinstance(error, (RuntimeError, AssertionError)) and any(words in text for words in _NO_DEVICE):
        return UsageError(f"the device cannot be used: {first}; --device cpu is always there")
    if isinstance(error, UnicodeDecodeError):
        return SourceError(f"a file that should be text is not UTF-8: {first}")
    place = _of_the_user(error)
    if place is None:
        return None
    return CaptureError(f"{place}: your own code raised {type(error).__name__}: {first}")


def is_lost_worker(error: Exception) -> bool:
    """Whether torch says that a process of a DataLoader ended before its time."""
    return isinstance(error, RuntimeError) and _WORKER.search(str(error)) is not None


def _memory(first: str) -> ResourceError:
    return ResourceError(
        f"not enough memory: {first}\n  a smaller batch (--batch-size, -i) or a smaller model needs less"
    )


def _of_the_user(error: BaseException) -> str | None:
    """`file:line` in the user's own code, where the error came from there, through torch at most."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(_PACKAGE):
            return None
        if frame.filename.startswith("<forward of"):
            return f"{frame.filename}:{frame.lineno}"
        installed = not _PACKAGES.isdisjoint(Path(frame.filename).parts)
        if not (installed or frame.filename.startswith((*_INSTALLED, "<"))):
            return f"{frame.filename}:{frame.lineno}"
    return None
