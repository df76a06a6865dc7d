"""Files that a grid names: where they lie, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from binarize.file_name import is_file, is_there

__all__ = ["Files"]

# Settings that may name a file whose contents decide the result.
_READ = ("model", "arch")
# Settings that may name a place; `data` and `teacher` are too large to be digested.
_PLACED = ("model", "arch", "data", "teacher")
# What these words mean is no file, whatever lies about.
_WORDS = ("digits", "fake", "none", "source")


class Files:
    """Names are looked for beside the grid first, then from where the program runs.

    Of the settings in `first_here` it is the other way round: the command line gave them.
    """

    def __init__(self, folder: Path, first_here: Sequence[str] = ()) -> None:
        self.folder, self.first_here = folder, tuple(first_here)
        self._digests: dict[Path, str] = {}

    def path(self, key: str, name: str) -> Path:
        """The file or folder of a name; the name itself where there is none."""
        if name in _WORDS:
            return Path(name)
        roots = [self.folder, Path.cwd()]
        for root in reversed(roots) if key in self.first_here else roots:
            if is_there(root / name):
                return (root / name).absolute()
        return Path(name)

    def digests(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Setting -> sha256 of the file it names, for those that name one."""
        found = {}
        for key in _READ:
            if key in settings:
                path = self.path(key, _file_in(settings[key])[0])
                if is_file(path):
                    found[key] = self._digest(path)
        return found

    def places(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Setting -> its value with the name of a file or folder made absolute, for those that name one."""
        found: dict[str, Any] = {}
        for key in _PLACED:
            value = settings.get(key)
            if isinstance(value, list):
                found[key] = [self._placed(key, one) for one in value]
            elif value is not None:
                found[key] = self._placed(key, value)
        return found

    def _placed(self, key: str, text: str) -> str:
        name, before, after = _file_in(text)
        path = self.path(key, name)
        return f"{before}{path}{after}" if path.is_absolute() else text

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[path]


def _file_in(text: str) -> tuple[str, str, str]:
    """(the part of a value that may name a file, what stands before it, what after): "idx:DIR", "file.py:make"."""
    if text.startswith("idx:"):
        return text[4:], "idx:", ""
    name, colon, call = text.partition(".py:")
    return (f"{name}.py", "", f":{call}") if colon else (text, "", "")
