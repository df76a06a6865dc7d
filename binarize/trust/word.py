"""What the user's word covers in this call: modules, Python files, folders of models, and pickles."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from binarize.disk.file_name import check_name

__all__ = [
    "SAID",
    "Word",
    "is_trusted",
    "pickles_trusted",
    "trusted_file",
    "trusted_words",
    "trusting",
    "trusting_pickles",
]

# A module by its name or itself, a Python file, or a folder or file of a model.
Word = str | os.PathLike[str] | ModuleType
# What was said in this call, and whether files of models may run what they hold.
SAID: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_PICKLES: ContextVar[bool] = ContextVar("pickles", default=False)


@contextmanager
def trusting(*words: Word) -> Iterator[None]:
    """Inside, files may name these too: modules ("mypackage.parts"), Python files ("parts.py"), folders of models.

    A module's name covers what lies below it. Say only what you would run yourself.

    Example:
        >>> with trusting("mypackage.parts"):                     # doctest: +SKIP
        ...     bnn = binarize.load("net-with-my-parts")
    """
    token = SAID.set(SAID.get() | {_normal(word) for word in words})
    try:
        yield
    finally:
        SAID.reset(token)


@contextmanager
def trusting_pickles() -> Iterator[None]:
    """Inside, the files of models that the user names may run what they hold, and the one that a folder was made from."""
    token = _PICKLES.set(True)
    try:
        yield
    finally:
        _PICKLES.reset(token)


def pickles_trusted() -> bool:
    """Whether the user said so in this call: `--trust-pickle`."""
    return _PICKLES.get()


def trusted_words() -> tuple[str, ...]:
    """What the user's word covers now, to be said again in another process."""
    return tuple(sorted(SAID.get()))


def _normal(word: Word) -> str:
    """A module's dotted name, or where a file or folder really lies."""
    if isinstance(word, ModuleType):
        return word.__name__
    text = os.fspath(word)
    check_name(text)
    is_module = re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text) and not text.endswith(".py")
    return text if is_module and not os.path.isdir(text) else os.path.realpath(text)


def is_trusted(name: str) -> bool:
    """Whether the user's word covers a module's name, or a file or folder."""
    said = SAID.get()
    if not name or "\0" in name:
        return False
    if os.path.realpath(name) in said:
        return True
    steps = name.split(".")
    return any(".".join(steps[:n]) in said for n in range(1, len(steps) + 1))


def trusted_file(module: str) -> Path | None:
    """The Python file of the user's word whose module goes by this name: "/home/me/parts.py" is `parts`."""
    paths = (Path(word) for word in sorted(SAID.get()) if word.endswith(".py"))
    return next((path for path in paths if path.stem == module), None)
