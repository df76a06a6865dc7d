"""Files and folders that appear under their final name whole or not at all, whatever kills the process."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from binarize.errors import UsageError

try:
    import fcntl
except ImportError:  # where there is no such lock, what a killed process left stays
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_place", "sync", "whole_file", "whole_folder"]

# A draft is made a moment before it is locked; one this old that nobody holds is abandoned.
_ABANDONED_SECONDS = 60


def check_place(target: Path) -> None:
    """Raises: UsageError, where no file or folder of this name could ever be made."""
    if target.name in ("", ".."):
        raise UsageError(f"{str(target)!r} is no name for something new; give one, as in -o my-model")
    above = next((path for path in target.absolute().parents if path.exists()), None)
    if above is not None and not above.is_dir():
        raise UsageError(f"{target}: {above} is a file, so that nothing can be written into it")


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends without an exception, replacing what is there."""
    # Beside the target, so that the rename stays on one disk.
    draft = target.with_name(f".{target.name}.draft")
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        sync(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    sync(target.absolute().parent)


@contextmanager
def whole_folder(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an exception.

    A folder that stands there is removed only after the new one has its name. With `keep`, the new one takes over what
    else that folder holds. What a killed process left of an earlier attempt is removed.
    """
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".draft", dir=parent))
    except OSError as error:  # the user named the target, not the draft
        raise OSError(error.errno, error.strerror, str(target)) from error
    handle = _held(draft)
    try:
        yield draft
        mask = _umask()
        for path in draft.rglob("*"):
            # Some libraries write files that nobody else may read.
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
            sync(path)
        draft.chmod(0o777 & ~mask)
        for path in target.iterdir() if keep else ():
            if not (draft / path.name).exists():
                _link(path, draft / path.name)
        _put(draft, target)
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(draft, ignore_errors=True)
    sync(parent)


def _held(folder: Path) -> int | None:
    """A handle that locks the folder while this process lives; None, where another holds it or nothing can."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by a living process, or a disk without locks
        os.close(handle)
        return None
    return handle


def _sweep(target: Path) -> None:
    for draft in target.absolute().parent.glob(f".{glob.escape(target.name)}.*.draft"):
        with suppress(OSError):  # another process was faster, or it is not ours to remove
            if time.time() - draft.stat().st_mtime < _ABANDONED_SECONDS:
                continue
            handle = _held(draft)
            if handle is not None:
                shutil.rmtree(draft, ignore_errors=True)
                os.close(handle)


def sync(path: Path) -> None:
    """Force a file or folder to the disk, before a rename makes it the truth."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=draft.parent)) / "folder"
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """The same file or tree at another place of one disk, without a copy where the disk can do that."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for path in source.iterdir():
            _link(path, target / path.name)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
