"""A new folder in the place of an old one: in one step where the system can, else in steps that the next command ends.

The one step exchanges two names. It cannot be taken where the folder has to stay what it is (a mount point, the folder
that a shell is in, one whose parent may not be written) and on file systems without it. There the new entries are
gathered, whole, as NAME/.new; from that moment on they are to take their places one by one, and whoever opens NAME next
ends what a killed process has begun.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from binarize.exchange import exchange
from binarize.file_name import why_no_name
from binarize.leftovers import LIST, NEW, is_leftover, place_of, set_aside
from binarize.owner import is_alive, is_owned, token

__all__ = ["must_stay", "put", "recover", "sync"]

# A living process is rarely longer between two of its steps.
_PATIENCE = 5.0


def must_stay(place: Path) -> bool:
    """Whether a folder cannot be renamed without harm, so that its entries have to be replaced."""
    if not place.is_dir():
        return False
    try:
        here = Path(os.path.realpath(os.getcwd()))
    except OSError:  # it was deleted
        here = Path(os.sep)
    return (
        os.path.ismount(place)
        or here == place
        or place in here.parents
        or not os.access(place.parent, os.W_OK)
    )


def put(draft: Path, place: Path, kept: Sequence[str]) -> None:
    """Let a whole folder take a place, beside the entries there that are `kept` and that it has none of.

    Where the draft lies in the place itself the entries are replaced, else the folder is.
    """
    if draft.parent != place:
        if _placed(draft, place):
            sync(place.parent)
            return
        inside = place / draft.name
        os.rename(draft, inside)
        draft = inside
    names = [path.name for path in draft.iterdir()]
    listed = {"owner": token(), "names": names, "kept": [name for name in kept if name not in names]}
    (draft / LIST).write_text(json.dumps(listed), "utf-8")
    sync(draft / LIST)
    sync(draft)
    os.rename(draft, place / NEW)
    sync(place)
    _complete(place)


def recover(target: Path) -> None:
    """End or undo what a killed process has begun at the place of a folder; nothing where nothing was begun."""
    if why_no_name(target) is not None:
        return
    place = place_of(target)
    with suppress(OSError):  # who may not write here reads what there is
        if place.is_dir():
            deadline = time.monotonic() + _PATIENCE
            while (place / NEW / LIST).is_file():
                if not _is_at_work(place):
                    _complete(place)
                elif time.monotonic() > deadline:
                    return
                else:
                    time.sleep(0.05)
        elif not place.exists() and (before := set_aside(place)) is not None:
            os.rename(before, place)
            before.parent.rmdir()


def sync(path: Path) -> None:
    """Force a file or folder to the disk, before a rename makes it the truth."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _placed(draft: Path, place: Path) -> bool:
    """Take the place in one step; False where that cannot be."""
    if place.exists() and exchange(draft, place):
        return True
    if place.exists():
        return False
    os.rename(draft, place)
    return True


def _is_at_work(place: Path) -> bool:
    """Whether the process lives that has begun to replace the entries."""
    try:
        owner = json.loads((place / NEW / LIST).read_text("utf-8"))["owner"]
    except (OSError, ValueError, KeyError, TypeError):
        owner = ""
    alive = is_alive(str(owner))
    return is_owned(place / NEW) if alive is None else alive


def _complete(place: Path) -> None:
    """Let the entries of NAME/.new take their places; the same however often a process was killed in it."""
    new = place / NEW
    if new.is_symlink():
        return
    try:
        listed = json.loads((new / LIST).read_text("utf-8"))
        names, kept = ({str(name) for name in listed[key]} for key in ("names", "kept"))
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing that was written here
    for path in [path for path in new.iterdir() if path.name in names]:
        _clear(place / path.name)
        os.rename(path, place / path.name)
    for path in place.iterdir():
        if path.name not in names and path.name not in kept and not is_leftover(path):
            _clear(path, files=True)
    sync(place)
    shutil.rmtree(new)
    sync(place)


def _clear(path: Path, *, files: bool = False) -> None:
    """Remove what a rename does not replace: a folder; with `files` whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif files:
        path.unlink(missing_ok=True)
