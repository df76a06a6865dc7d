"""The door of the exporters: what other people's libraries raise comes out as an error of ours, in words."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from binarize.errors import BinarizeError, CheckError, UsageError
from binarize.failures import in_words

__all__ = ["in_our_words"]

_PACKAGE = str(Path(__file__).parents[1])
_OTHERS = {"c": "onnx", "onnx": "pt2", "qonnx": "onnx", "openvino": "onnx", "pt2": "onnx"}
_LONGEST = 300


@contextmanager
def in_our_words(format: str) -> Iterator[None]:
    """Within it whatever is raised comes out as a BinarizeError, with the foreign one as its cause.

    Raises: UsageError, where a library does not take the model; CheckError, where the exporter itself failed.
    """
    try:
        yield
    except BinarizeError:
        raise
    except Exception as error:  # libraries raise errors of any type, and no user should have to read them
        raise _told(format, error) from error


def _told(format: str, error: Exception) -> BinarizeError:
    known = in_words(error)
    if known is not None:
        return known
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}".rstrip(": ")
    way = f"try --format {_OTHERS[format]}"
    library = _library(error)
    if library is not None:
        return UsageError(
            f"export {format}: {library} fails on the model ({said}); nothing was written; {way}"
        )
    return CheckError(
        f"export {format}: the exporter fails on the model ({said}), which is a fault of binarize; nothing was written; "
        f"{way}, and --debug shows where it happened"
    )


def _library(error: BaseException) -> str | None:
    """The package whose code raised the error; None for our own and for Python's."""
    frames = traceback.extract_tb(error.__traceback__)
    file = frames[-1].filename if frames else ""
    if not file or file.startswith(_PACKAGE):
        # Compiled libraries have no frames: their errors come from the line that calls them.
        module = type(error).__module__.partition(".")[0]
        return module if module not in ("builtins", "binarize", "") else None
    for root in sorted(sys.path, key=len, reverse=True):
        if root and file.startswith(root) and "site-packages" in root:
            return Path(file[len(root) :].lstrip("/\\")).parts[0].removesuffix(".py")
    return None
