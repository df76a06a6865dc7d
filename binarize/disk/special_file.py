"""Pipes, devices and sockets, which are no files: reading one may wait for ever, or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["why_special"]

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def why_special(path: str | Path) -> str | None:
    """`is a pipe; expected a file`; None for files, folders and what is not there. Nothing is opened."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((f"is {name}; expected a file" for is_kind, name in _KINDS if is_kind(mode)), None)
