"""Files and folders that appear under their final name whole or not at all, whatever kills the process."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from binarize.claim import claimed, held
from binarize.errors import UsageError
from binarize.file_name import check_name
from binarize.leftovers import draft_file, draft_folder, is_leftover, place_of
from binarize.replacement import must_stay, put, recover, sync

__all__ = ["check_place", "recover", "sync", "whole_file", "whole_folder"]


def check_place(target: Path) -> None:
    """Raises: UsageError, where no file or folder of this name could ever be made."""
    check_name(target)
    if target.name in ("", ".."):
        raise UsageError(f"{str(target)!r} is no name for something new; give one, as in -o my-model")
    above = next((path for path in target.absolute().parents if path.exists()), None)
    if above is not None and not above.is_dir():
        raise UsageError(f"{target}: {above} is a file, so that nothing can be written into it")


@contextmanager
def whole_file(target: Path, *, follow: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends without an exception, replacing what is there.

    Where `target` is a link, it is replaced, so that a folder of somebody else's leads nowhere. `follow` is for a name
    that the user gave: what the link names is then replaced.

    Raises: UsageError, where there is something else than a file.
    """
    place = place_of(target) if follow else place_of(target.parent) / target.name
    if place.exists() and not place.is_symlink() and not stat.S_ISREG(place.stat().st_mode):
        what = "a folder" if place.is_dir() else "no plain file"
        raise UsageError(f"{target} is {what}, which is not replaced by a file; give another name")
    with draft_file(place) as draft, _said_of(draft, target):
        yield draft
        draft.chmod(0o666 & ~_umask())
        sync(draft)
        if (claim := held(place)) is not None:
            claim.puts(draft)
        draft.replace(place)
    sync(place.parent)


@contextmanager
def whole_folder(target: Path, *, keep: bool = False, but: Collection[str] = ()) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an exception.

    A folder that stands there is exchanged for it, and then removed. With `keep`, the new one takes over what else that
    folder holds, without the names in `but`. What a killed process left of an earlier attempt is removed. Where `target`
    is a link, what it names is replaced.

    Raises: UsageError, where another process writes the same folder.
    """
    place = place_of(target)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    with claimed(target) as claim:
        recover(place)
        stays = must_stay(place)
        with draft_folder(place, place if stays else place.parent) as draft, _said_of(draft, target):
            yield draft
            _settle(draft)
            claim.puts(draft)
            there = place.iterdir() if keep and place.is_dir() else ()
            kept = [path for path in there if not is_leftover(path) and path.name not in but]
            for path in () if stays else kept:
                if not os.path.lexists(draft / path.name):
                    _link(path, draft / path.name)
            put(draft, place, [path.name for path in kept])


@contextmanager
def _said_of(draft: Path, target: Path) -> Iterator[None]:
    """Errors of the disk name what the user knows: the target, not its draft."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        if not name.startswith(str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(target) + name[len(str(draft)) :]) from error


def _settle(draft: Path) -> None:
    """Everything in it readable to whom the umask lets, and on the disk: some libraries write files for nobody else."""
    mask = _umask()
    for path in draft.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        sync(path)
    draft.chmod(0o777 & ~mask)
    sync(draft)


def _link(source: Path, target: Path) -> None:
    """The same file or tree at another place of one disk, without a copy where the disk can do that."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for path in source.iterdir():
            if not is_leftover(path):
                _link(path, target / path.name)
        sync(target)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
