"""The hidden names beside a file or folder that is written, and what killed processes left under them.

.NAME.OWNER.RANDOM.draft    what is to become NAME, or what was NAME and is being removed
.NAME.writing               who holds NAME
.NAME.RANDOM.old/folder     what was NAME, of versions that renamed it in two steps
NAME/.new/                  entries that are to take the place of those in NAME, all of them whole
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from binarize.file_name import check_name
from binarize.owner import is_owned, lock, token

__all__ = [
    "LIST",
    "NEW",
    "draft_file",
    "draft_folder",
    "hidden",
    "is_empty",
    "is_leftover",
    "place_of",
    "set_aside",
    "sweep",
]

# Where entries are gathered that are to take the places of others, and the list of them in there.
NEW, LIST = ".new", ".list"
# Names may have 255 bytes; what is put around them takes some.
_LONGEST = 160
_OWNER, _RANDOM = r"[0-9a-f]{8}-\d+-\d+", r"[a-z0-9_]{8}"
_OURS = re.compile(rf"\..+\.({_OWNER}\.{_RANDOM}\.draft|writing|writing\.draft)|\.new", re.DOTALL)
# What follows the name in a draft, with those of versions that named no owner.
_DRAFT = re.compile(rf"(({_OWNER}\.)?{_RANDOM}\.)?draft")
_OLD = re.compile(rf"{_RANDOM}\.old")
# So that no thread sweeps what another has made and not locked yet.
_MAKING = threading.Lock()


def place_of(target: Path) -> Path:
    """Where a file or folder really lies: what links name, without "." and "..".

    Raises: UsageError, where no file can have this name.
    """
    check_name(target)
    return Path(os.path.realpath(target))


def hidden(place: Path, ending: str) -> Path:
    """The name beside a file or folder that ends so."""
    return place.with_name(f".{_stem(place.name)}.{ending}")


def is_leftover(path: Path) -> bool:
    """Whether a name is one of these, and nothing of the user's."""
    return _OURS.fullmatch(path.name) is not None


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed process left."""
    return folder.is_dir() and all(is_leftover(path) for path in folder.iterdir())


@contextmanager
def draft_folder(place: Path, parent: Path) -> Iterator[Path]:
    """An empty folder in `parent` for what is to become `place`, in the same way."""
    sweep(place)
    with _MAKING, _about(place):
        start = f".{_stem(place.name)}.{token()}."
        name = tempfile.mkdtemp(prefix=start, suffix=".draft", dir=parent)
        handle = _opened(Path(name))
    try:
        yield Path(name)
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(name, ignore_errors=True)


@contextmanager
def draft_file(place: Path) -> Iterator[Path]:
    """A path for what is to become the file at `place`, which no other process uses or sweeps.

    It lies in a folder of its own: some writers make files beside the one that they are asked for.
    """
    with draft_folder(place, place.parent) as folder:
        yield folder / place.name


@contextmanager
def _about(place: Path) -> Iterator[None]:
    """Errors inside name the place, which is what the user knows, and not the draft."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from error


def sweep(place: Path) -> None:
    """Remove the drafts of a place that nobody owns, and what an older version kept of what stood there before."""
    with _MAKING:
        owned = False
        for path in [*_beside(place, _DRAFT), *_beside(place / place.name, _DRAFT)]:
            if is_owned(path):
                owned = True
            else:
                _remove(path)
        if place.exists() and not owned:
            for path in _beside(place, _OLD):
                _remove(path)
            if not (place / NEW / LIST).exists():
                _remove(place / NEW)


def set_aside(place: Path) -> Path | None:
    """What stood at a place until a process of an older version was killed between its two renames; else None."""
    if any(is_owned(path) for path in _beside(place, _DRAFT)):
        return None
    found = [path / "folder" for path in _beside(place, _OLD) if (path / "folder").is_dir()]
    whole = [path for path in found if any(path.iterdir())]
    return max(whole, key=lambda path: path.parent.stat().st_mtime, default=None)


def _beside(place: Path, ending: re.Pattern[str]) -> list[Path]:
    """The hidden names beside a place that end so."""
    start = f".{_stem(place.name)}."
    try:
        names = os.listdir(place.parent)
    except OSError:  # there is no such folder, or nobody may look
        return []
    return sorted(
        place.parent / name
        for name in names
        if name.startswith(start) and ending.fullmatch(name[len(start) :])
    )


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process was faster, or it is not ours to remove
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _opened(folder: Path) -> int | None:
    """A handle that locks a folder; None where folders cannot be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    lock(handle)
    return handle


def _stem(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= _LONGEST:
        return name
    return f"{os.fsdecode(data[:_LONGEST])}-{hashlib.sha256(data).hexdigest()[:8]}"
