"""A name that one command at a time writes to, and what is known of a command that was killed while it did.

Beside NAME lies `.NAME.writing` while somebody writes NAME: who, with which words, and what is about to become NAME. A
process that ends removes it. A killed one leaves it: whoever says the same words again learns so that this is a
repetition, and whether NAME is what the killed process wrote.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from binarize.errors import UsageError
from binarize.leftovers import hidden, place_of, sweep
from binarize.owner import is_alive, lock, token

__all__ = ["Claim", "claimed", "held"]


@dataclass(frozen=True)
class _Note:
    """What stands in the file."""

    owner: str = ""
    # What the command is called, for people.
    command: str = ""
    # What was said, so that the same can be told from another.
    words: str = ""
    # Files that are there once it is written, from the folder above it on: [device, number].
    put: Mapping[str, Sequence[int]] = field(default_factory=dict)
    # What a repetition is to know.
    found: Mapping[str, Any] = field(default_factory=dict)


class Claim:
    """A name held by this process.

    `written`  whether the name stands for what a killed process with the same words put there
    """

    def __init__(self, place: Path, path: Path | None, handle: int | None, made: Sequence[Path] = ()) -> None:
        self._place, self._path, self._handle, self._made = place, path, handle, made
        self._note = _Note()
        # What a killed process with the same words was about to put there.
        self._before: Mapping[str, Sequence[int]] = {}
        self.written = False

    @property
    def found(self) -> Mapping[str, Any]:
        """What `keep` was given last, by a killed process with the same words too."""
        return self._note.found

    def keep(self, found: Mapping[str, Any]) -> None:
        """Let a process with the same words know something, if this one is killed."""
        self._write(replace(self._note, found=dict(found)))

    def puts(self, draft: Path, *beside: str) -> None:
        """Say that a file, or a folder of files, becomes what the name stands for, right before it does.

        With names `beside`, those of its files take their places one by one, beside the name.
        """
        name = self._place.name
        if draft.is_file():
            found = {name: draft}
        elif beside:
            found = {other: draft / other for other in beside}
        else:
            found = {f"{name}/{path.name}": path for path in draft.iterdir() if path.is_file()}
        if self._note.words:
            self._write(replace(self._note, put={name: _number(path) for name, path in found.items()}))

    def wrote(self, path: Path) -> bool:
        """Whether a killed process with the same words put a file there, beside the name."""
        return self._before.get(path.name) == _number(path)

    def _begin(self, note: _Note, before: _Note) -> None:
        """Take over what a killed process with the same words left."""
        if note.words and before.words == note.words:
            self._before = before.put
            self.written = bool(before.put) and all(
                _number(self._place.parent / name) == list(number) for name, number in before.put.items()
            )
            note = replace(note, put=before.put, found=before.found)
            if self.written:
                # A repetition that finds all done makes no draft, which would sweep.
                sweep(self._place)
        self._write(note)

    def _write(self, note: _Note) -> None:
        self._note = note
        if self._path is None:
            return
        # Its place is taken in one step: what stood there is needed until the new text is whole.
        draft = self._path.with_name(f"{self._path.name}.draft")
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            lock(handle)
            os.write(handle, json.dumps(note.__dict__).encode())
            os.replace(draft, self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            os.close(handle)
            raise
        if self._handle is not None:
            os.close(self._handle)
        self._handle = handle

    def release(self, *, failed: bool = False) -> None:
        """Let others have the name. After an error that came when something was written, the same words are a repetition."""
        if self._path is not None and not (failed and self._note.put):
            self._path.unlink(missing_ok=True)
        self.forget()
        for folder in self._made:
            with suppress(OSError):
                # Looked at first: nothing may be left to do, and to be killed at, once the name is free.
                if not os.listdir(folder):
                    folder.rmdir()

    def forget(self) -> None:
        """In a process that was forked, where it is the other one's."""
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = None


# Held by this process: a thread's own may be asked for again further down.
_HELD: dict[tuple[Path, int], Claim] = {}


@contextmanager
def claimed(target: Path, command: str = "", words: str = "", *, parents: bool = False) -> Iterator[Claim]:
    """Hold a name, so that no other process writes it; where this thread holds it already, the same claim.

    `command` is what others are told, `words` what tells a repetition. With `parents` the folders above it are made, and
    removed at the end where they are empty.

    Raises: UsageError, where a living process holds the name.
    """
    place = place_of(target)
    key = (place, threading.get_ident())
    claim = _HELD.get(key)
    if claim is not None:
        yield claim
        return
    claim = _HELD[key] = _take(target, place, _Note(token(), command, words), parents)
    failed = True
    try:
        yield claim
        failed = False
    finally:
        _HELD.pop(key, None)
        claim.release(failed=failed)


def held(place: Path) -> Claim | None:
    """This thread's claim of a place, if it has one."""
    return _HELD.get((place, threading.get_ident()))


def _take(target: Path, place: Path, note: _Note, parents: bool) -> Claim:
    path = hidden(place, "writing")
    made = [folder for folder in place.parents if parents and not folder.exists()]
    while True:
        try:
            if made:
                place.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            # Where nothing can be made the name cannot be replaced either; whoever tries says so.
            return Claim(place, None, None)
        mine, before = lock(handle), _read(handle)
        if mine is False or (mine is None and is_alive(before.owner)):
            os.close(handle)
            raise UsageError(_held_by(target, before))
        if not _is_at(handle, path):
            os.close(handle)
            continue  # its owner removed it in between
        claim = Claim(place, path, handle, made)
        claim._begin(note, before)
        return claim


def _number(path: Path) -> list[int]:
    """What tells a file from every other, whatever it is called."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_dev, found.st_ino]


def _read(handle: int) -> _Note:
    try:
        found = json.loads(os.pread(handle, 1 << 24, 0))
        return _Note(**{key: found[key] for key in _Note.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return _Note()  # a process was killed before it had written anything


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False


def _held_by(target: Path, note: _Note) -> str:
    pid = note.owner.split("-")[1] if note.owner.count("-") == 2 else ""
    who = f"process {pid}" if pid else "another process"
    what = f" (binarize {note.command})" if note.command else ""
    return f"{target}: is being written by {who}{what}; wait for it, or name another place (-o)"


def _forget_all() -> None:
    for claim in _HELD.values():
        claim.forget()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
