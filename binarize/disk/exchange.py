"""Two names of one disk exchanged in one step, so that each is there at every moment."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["exchange"]

# renameat2's number, for a libc that is older than the call.
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "loongarch64": 276, "ppc64le": 357, "s390x": 347}
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2
# What a system or a file system says that has no such call, and one that forbids it.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM)
# What a mount point says, which has to stay where it is.
_UNMOVABLE = (errno.EBUSY, errno.EXDEV)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files or folders that are there; False where this system or this disk cannot, and nothing was done.

    Raises: OSError, where one of them is missing or may not be renamed.
    """
    call = _call()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNKNOWN or number in _UNMOVABLE:
        return False
    raise OSError(number, os.strerror(number), str(other))


@cache
def _call() -> Any:
    """A function of two paths that gives 0 where they are exchanged; None where there is none."""
    if os.name != "posix":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        return None if not hasattr(libc, "renamex_np") else lambda a, b: libc.renamex_np(a, b, _RENAME_SWAP)
    if not sys.platform.startswith("linux"):
        return None
    if hasattr(libc, "renameat2"):
        return lambda a, b: libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE)
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        return None
    return lambda a, b: libc.syscall(number, _AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE)
