"""Everything this library raises on purpose.

BinarizeError                 1  base class; itself only for a fault of ours
├── UsageError                2  an argument that cannot be meant
├── ResourceError             2  a file, the disk, a device or the memory fails
├── RuleError                 3  a rule file or a rule override is wrong
├── SourceError               4  the model's source cannot be loaded
│   └── UntrustedSourceError  4  loading it would run code from the file
├── CaptureError              5  the model can neither be recorded nor walked
├── NothingToBinarizeError    6  no layer was binarized
├── StrictError               6  --strict, and there was a warning
├── CheckError                7  a self-check failed: shapes, NaN, reload or export mismatch
├── StoppedError            130  a signal asked a training to end; it has been saved
└── RewriteError              1  a pass met a graph that the plan did not foresee

The number is the exit code of the command line. A message says what was found, where, what was expected and the
nearest way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from binarize.shown_text import shown

__all__ = [
    "REFUSALS",
    "BinarizeError",
    "BinarizeWarning",
    "CaptureError",
    "CheckError",
    "NothingToBinarizeError",
    "ResourceError",
    "RewriteError",
    "RuleError",
    "SourceError",
    "StoppedError",
    "StrictError",
    "UntrustedSourceError",
    "UsageError",
    "did_you_mean",
    "in_command",
    "way",
    "without_traceback",
]

# What constructors and builders of others raise for arguments that they cannot take: most do not look at them.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class BinarizeError(Exception):
    """Base of all errors raised on purpose. Its message is printable, whatever names of files and layers stand in it."""

    exit_code = 1

    def __str__(self) -> str:
        return shown(super().__str__())


class BinarizeWarning(UserWarning):
    """Something that may be wrong, where the work goes on; the command line shows it as its own warning."""

    def __str__(self) -> str:
        return shown(super().__str__())


class UsageError(BinarizeError):
    """An argument that cannot be meant."""

    exit_code = 2


class ResourceError(BinarizeError):
    """A file, the disk, a device or the memory fails."""

    exit_code = 2


class RuleError(BinarizeError):
    """A rule file or a rule override is wrong. The message starts with `file:line:column`."""

    exit_code = 3


class SourceError(BinarizeError):
    """The named model cannot be loaded."""

    exit_code = 4


class UntrustedSourceError(SourceError):
    """Loading the file would import or run code that nobody allowed."""


class CaptureError(BinarizeError):
    """The model can neither be recorded nor walked."""

    exit_code = 5


class NothingToBinarizeError(BinarizeError):
    """No layer was binarized."""

    exit_code = 6


class StrictError(BinarizeError):
    """Strict mode was asked for and there was something to warn of."""

    exit_code = 6


def refuse_warnings(strict: bool, warnings: Sequence[str]) -> None:
    """Raises: StrictError, where strict mode was asked for and there are warnings."""
    if strict and warnings:
        raise StrictError("\n".join(["strict: there are warnings", *warnings]))


class CheckError(BinarizeError):
    """A self-check failed."""

    exit_code = 7


class StoppedError(BinarizeError):
    """A signal asked a training to end; the message says where it was saved and how to go on."""

    exit_code = 130


class RewriteError(BinarizeError):
    """A pass met a graph that the plan did not foresee: a fault of ours."""


# Whether a command of the command line is at work, so that messages speak of its options.
_IN_COMMAND: ContextVar[bool] = ContextVar("in_command", default=False)


@contextmanager
def in_command() -> Iterator[None]:
    """Inside, messages name options of the command line; elsewhere arguments of Python."""
    token = _IN_COMMAND.set(True)
    try:
        yield
    finally:
        _IN_COMMAND.reset(token)


def way(command: str, python: str) -> str:
    """A way out in the words of the caller: an option on the command line, an argument in Python.

    Example:
        >>> way("--force", "force=True")
        'force=True'
    """
    return command if _IN_COMMAND.get() else python


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`'; did you mean "kernel"?'` for the nearest known word, or an empty string.

    Example:
        >>> did_you_mean("kernal", ["kernel", "stride"])
        '; did you mean "kernel"?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def without_traceback(error: BinarizeError) -> BinarizeError:
    """An error of ours as it was raised: one from a DataLoader's worker has the worker's traceback for its message."""
    kind = type(error)
    _, raised, message = str(error).partition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return kind(message.rstrip()) if raised else error
