"""Rule text -> a document of plain data, and plain data -> text.

The subset of YAML 1.2 that JSON can hold: mappings with words as keys, lists, strings, numbers, booleans,
null. No aliases, tags or second documents, so a small file cannot become large data. `no` and `off` are
words.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from binarize.disk.special_file import why_special
from binarize.errors import RuleError
from binarize.rules.yaml.document import Document, Path, spell
from binarize.rules.yaml.parser import BOOL, MAX_DEPTH, NULL, Parser

__all__ = ["MAX_BYTES", "RuleText", "flow", "parse", "parse_value", "plain", "read_text"]

# A rule file is a page or two; the largest that this program writes (a name per layer) stays far below.
MAX_BYTES = 256 * 1024


@dataclass(frozen=True)
class RuleText:
    """Rule text that comes from no file, and the name it goes by in messages ("<stdin>")."""

    text: str
    name: str = "<text>"


def read_text(path: str | pathlib.Path) -> RuleText:
    """The text of a rule file. Raises RuleError where it cannot be read, is too large, or is no UTF-8."""
    special = why_special(path)
    if special is not None:
        raise RuleError(f"{path} {special}")
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RuleError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise RuleError(f"{str(path)!r} is no path: {error}") from error
    if len(raw) > MAX_BYTES:
        raise _too_large(str(path))
    try:
        return RuleText(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        found = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        raise RuleError(f"{path}:{line}:{column}  {found}; is this a text file?") from error


def _too_large(name: str) -> RuleError:
    return RuleError(f"{name} is larger than {MAX_BYTES // 1024} KiB; a rule file is a page or two of YAML")


def parse(source: RuleText) -> Document:
    """The one YAML document in a text. Raises RuleError with the place for everything else."""
    if len(source.text) > MAX_BYTES:
        raise _too_large(source.name)
    return Parser(source.name, source.text).document()


def parse_value(text: str, name: str) -> Any:
    """The value of a piece of YAML: "3" is a number, "no" a word, "[1, 2]" a list."""
    # Rules have no aliases, so a pattern needs no quotes here.
    if text.startswith("*"):
        return text
    return parse(RuleText(text, name)).data if text.strip() else None


def plain(value: object, name: str, path: Path = ()) -> Any:
    """Python data as the JSON values that `parse` gives. Raises RuleError for what no file could hold."""
    if len(path) > MAX_DEPTH:
        raise RuleError(f"{name}: {spell(path)} is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RuleError(f"{name}: {spell(path)} has the key {key!r}; keys are words")
        return {key: plain(item, name, (*path, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, pathlib.Path):
        return str(value)
    if (
        value is None
        or isinstance(value, (str, bool, int))
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise RuleError(
        f"{name}: {spell(path)} is {value!r}; expected text, numbers, booleans, lists or mappings"
    )


# Text that YAML reads back as the same text without quotes, in a flow list as well.
_BARE = re.compile(r"[A-Za-z_][\w./()*+-]*(?: [\w./()*+-]+)*", re.ASCII)


def flow(value: object) -> str:
    """Plain data as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) and value not in BOOL and value not in NULL else _quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
