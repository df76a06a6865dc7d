"""What lies under a name that a file or a user gave, whatever the name: pathlib raises for some of them.

A name may be longer than the disk takes, hold a zero byte, or characters that no encoding of the disk has. Nothing lies
under such a name, and nothing can be made there. Where the disk does not answer, pathlib's OSError is raised.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

from binarize.errors import UsageError

__all__ = ["as_text", "check_name", "is_file", "is_folder", "is_there", "why_no_name"]

_NEVER = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
# Of a name that is too long, so much is told.
_SHOWN = 80
# Python shows the byte 0xff of a name, where it is no UTF-8, as the half character U+DCFF.
_HALVES, _BYTES = re.compile("[\ud800-\udfff]"), 0xDC00


def as_text(value: object) -> Any:
    """The JSON value with `\\xff` for each byte of a name that is no UTF-8: Python holds it as half a character,
    which no record may hold.
    """
    if isinstance(value, str):
        return _HALVES.sub(_escaped, value)
    if isinstance(value, (list, tuple)):
        return [as_text(item) for item in value]
    if isinstance(value, dict):
        return {as_text(key): as_text(item) for key, item in value.items()}
    return value


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - _BYTES:02x}" if code - _BYTES in range(0x80, 0x100) else f"\\u{code:04x}"


def why_no_name(path: str | Path) -> str | None:
    """`File name too long`; None for a name that a file can have, whether there is one or not."""
    try:
        os.stat(path)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return error.strerror if error.errno in _NEVER else None
    return None


def check_name(path: str | Path) -> None:
    """Raises: UsageError, where no file or folder can have this name."""
    if (why := why_no_name(path)) is not None:
        raise UsageError(f"{str(path)[:_SHOWN]!r}: not a name that a file can have: {why}")


def is_file(path: str | Path) -> bool:
    """Whether a file lies under the name."""
    return why_no_name(path) is None and Path(path).is_file()


def is_folder(path: str | Path) -> bool:
    """Whether a folder lies under the name."""
    return why_no_name(path) is None and Path(path).is_dir()


def is_there(path: str | Path) -> bool:
    """Whether anything lies under the name."""
    return why_no_name(path) is None and Path(path).exists()
