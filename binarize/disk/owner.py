"""Which process a file belongs to that is being written, and whether that process still lives.

A file lock tells it wherever there are file locks: it ends with its process, on another machine too. A name tells it as
well: `.NAME.MACHINE-PID-START.RANDOM.draft`; on the same machine a process is known by its number and when it began.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # there names alone tell it
    fcntl = None  # type: ignore[assignment]

__all__ = ["is_alive", "is_owned", "lock", "token"]

_TOKEN = re.compile(r"(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)")


def token() -> str:
    """This process, in words that no other process has: MACHINE-PID-START."""
    return f"{_machine()}-{os.getpid()}-{_start(os.getpid())}"


def is_alive(text: str) -> bool | None:
    """Whether the process that a text with its token names lives; None where that cannot be told from here."""
    found = _TOKEN.search(text)
    if found is None or found["machine"] != _machine() or os.name != "posix":
        return None
    pid = int(found["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        pass
    return _start(pid) == int(found["start"])


def is_owned(path: Path) -> bool:
    """Whether a process may still be at work on this file or folder."""
    alive = is_alive(path.name)
    if alive is not None:
        return alive
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return True
    try:
        return lock(handle) is not True
    finally:
        os.close(handle)


def lock(handle: int) -> bool | None:
    """Lock an open file for as long as it is open: True where it is ours now, False where it is another's.

    None where the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@cache
def _machine() -> str:
    """This machine since it was started, and the numbering of processes that this one sees."""
    facts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            facts.append(read())
        except OSError:  # no Linux
            continue
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]


def _start(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 where nothing tells."""
    try:
        # The name before it stands in parentheses and may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
