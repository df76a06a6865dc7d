"""What a file names, refused where it may not: a builder, a teacher, data."""

from __future__ import annotations

import os
import re

from binarize.errors import UntrustedSourceError
from binarize.shown_text import one_line
from binarize.trust.builders import is_builder
from binarize.trust.word import SAID, is_trusted

__all__ = ["check_builder", "check_data", "check_teacher", "is_teacher", "quoted"]

# Data that other packages open: by an address, or by a command that they run ("wds/pipe:...").
_DATA_PREFIXES = ("torch", "hfds", "hfids", "wds", "tfds")
_TORCH_DATA = re.compile(r"(?i:torch)/[A-Za-z0-9_-]+")

_ANYTHING_SAID = "a file may name torchvision:NAME or timm:NAME with plain numbers alone"
_SHOWN = 80


def check_builder(text: object, where: str, say: str = "say it yourself") -> str:
    """The builder that a file names: a bare one, or the user's own code where the user's word covers it.

    `where` is the file and the key; `say` how the user can name it in this call.

    Raises: UntrustedSourceError for anything else.
    """
    if isinstance(text, str) and (is_builder(text) or _is_trusted_code(text)):
        return text
    raise UntrustedSourceError(
        f"{where}: names {quoted(text)}; {_ANYTHING_SAID}\n  where you trust it, {say}"
    )


def _is_trusted_code(text: str) -> bool:
    """Whether a text reads as file.py:make or package.module:Net, of a file or module that the user named."""
    place, colon, _ = text.partition(":")
    return bool(colon) and place not in ("", "torchvision", "timm") and is_trusted(place)


def check_teacher(text: object, where: str, say: str = "name it yourself: --teacher (teacher=...)") -> str:
    """The teacher that a file names: source, none, a bare builder, or what the user's word covers.

    Raises: UntrustedSourceError for anything else.
    """
    if isinstance(text, str) and is_teacher(text):
        return text
    raise UntrustedSourceError(
        f"{where}: the teacher {quoted(text)}; a file may name source, none, torchvision:NAME or timm:NAME\n"
        f"  where you trust it, {say}"
    )


def is_teacher(text: str) -> bool:
    """Whether a file may name this teacher."""
    known = text in ("source", "none") or is_builder(text) or _is_trusted_code(text)
    return known or (bool(text) and "\0" not in text and os.path.realpath(text) in SAID.get())


def check_data(text: object, where: str) -> str:
    """The data that a file names: made up, or read from this disk by code of ours and torchvision's.

    Raises: UntrustedSourceError for what other packages fetch or run.
    """
    if isinstance(text, str) and "://" not in text:
        prefix, slash, _ = text.partition("/")
        through_others = bool(slash) and prefix.lower() in _DATA_PREFIXES
        if not through_others or _TORCH_DATA.fullmatch(text) or os.path.isdir(text):
            return text
    raise UntrustedSourceError(
        f"{where}: the data {quoted(text)}; a file may name digits, fake, idx:PATH, torch/NAME or a folder\n"
        "  where you trust it, name it yourself: --data, or --set data=... of a study (data=...)"
    )


def quoted(value: object) -> str:
    """What a message says of a value that a file holds: in quotation marks, printable, and not longer than a line."""
    text = value if isinstance(value, str) else type(value).__name__
    return f'"{one_line(text[:_SHOWN])}{"..." * (len(text) > _SHOWN)}"'
