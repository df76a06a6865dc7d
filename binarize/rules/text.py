"""Rule text -> a document of plain data, and plain data -> text.

The subset of YAML 1.2 that JSON can hold: mappings with words as keys, lists, strings, numbers, booleans,
null. No aliases, tags or second documents, so a small file cannot become large data. `no` and `off` are
words.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from binarize.disk.special_file import why_special
from binarize.errors import RuleError
from binarize.rules.document import Document, Path, point_at, spell

__all__ = [
    "MAX_BYTES",
    "RuleText",
    "flow",
    "parse",
    "parse_value",
    "plain",
    "read_text",
]

# A rule file is a page or two; the largest that this program writes (a name per layer) stays far below.
MAX_BYTES = 256 * 1024
# rules > rule > match > any > not > ...: nobody nests deeper by hand.
MAX_DEPTH = 24
# As many values as a name for each of a few thousand layers; reading them takes seconds.
MAX_VALUES = 20_000
# Integers up to 2**64 (seeds) have 20 digits; more is a mistake.
_MAX_DIGITS = 24

_NULL = ("", "~", "null", "Null", "NULL")
_BOOL = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What YAML 1.2 readers count as the end of a line.
_BREAK = re.compile("\r\n|[\n\r]")

_CUT_SHORT = "the text ends in the middle of a value; is a bracket or quote left open?"
_INDENTED = "this line is indented otherwise than the lines it belongs to"
# What the parser says, and what to say instead.
_PLAINER = (
    ("found character '\\t'", "a tab; YAML is indented with spaces"),
    (
        "mapping values are not allowed here",
        "a colon after what is no key; put text with a colon into quotes, or mend the indentation",
    ),
    ("but found '<stream end>'", _CUT_SHORT),
    ("found unexpected end of stream", _CUT_SHORT),
    ("found character", "a character that no value may begin with; put the value into quotes"),
    ("but found '<block mapping start>'", _INDENTED),
    ("but found '<block sequence start>'", _INDENTED),
)


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
    return _Parser(source).document()


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
        return (
            value if _BARE.fullmatch(value) and value not in _BOOL and value not in _NULL else _quoted(value)
        )
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


class _Parser:
    """Builds the data of one document from the events of the YAML parser."""

    def __init__(self, source: RuleText) -> None:
        self.name = source.name
        self.lines = _BREAK.split(source.text)
        self.text = source.text
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}

    def document(self) -> Document:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError
        from ruamel.yaml.reader import ReaderError

        try:
            events = iter(YAML(typ="safe", pure=True).parse(self.text))
            data = self._document(events)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = (mark.line, mark.column) if mark else (0, 0)
            problem = next(
                (better for said, better in _PLAINER if said in (error.problem or "")), error.problem
            )
            raise self._fail(f"this is no YAML: {problem}", at) from error
        except ReaderError as error:
            before = _BREAK.split(self.text[: error.position])
            at = (len(before) - 1, len(before[-1]))
            raise self._fail(
                f"the character U+{ord(self.text[error.position]):04X} is not allowed", at
            ) from error
        except (OverflowError, ValueError) as error:
            # The scanner turns "\U..." escapes into characters unchecked.
            raise RuleError(f"{self.name}: this is no YAML: {error}") from error
        return Document(self.name, data, self.lines, self.keys, self.values)

    def _fail(self, message: str, at: tuple[int, int]) -> RuleError:
        return RuleError(point_at(self.name, self.lines, *at, message))

    def _document(self, events: Iterator[Any]) -> Any:
        from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent

        next(events)
        if not isinstance(next(events), DocumentStartEvent):
            raise RuleError(f'{self.name} is empty; it should begin with "schema: 1"')
        data = self._value(next(events), events, ())
        next(events)
        after = next(events)
        if not isinstance(after, StreamEndEvent):
            raise self._fail("a second document begins here; a rule file is one document", _at(after))
        return data

    def _value(self, event: Any, events: Iterator[Any], path: Path) -> Any:
        from ruamel.yaml import events as kinds

        self.values[path] = _at(event)
        if len(self.values) > MAX_VALUES:
            raise self._fail(f"more than {MAX_VALUES} values", _at(event))
        if isinstance(event, kinds.AliasEvent):
            raise self._fail(f"*{event.anchor} reads as an alias; put a pattern into quotes", _at(event))
        if event.tag is not None:
            raise self._fail(f"{event.tag} is a tag; rule files have none", _at(event))
        if len(path) > MAX_DEPTH:
            raise self._fail(f"nested deeper than {MAX_DEPTH}", _at(event))
        if isinstance(event, kinds.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, kinds.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(events), kinds.SequenceEndEvent):
                items.append(self._value(event, events, (*path, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), kinds.MappingEndEvent):
            if not isinstance(event, kinds.ScalarEvent):
                raise self._fail("a key is a word", _at(event))
            key = self._checked(event)
            inner = (*path, key)
            if key in mapping:
                first = self.keys[inner][0] + 1
                raise self._fail(f'duplicate key "{key}"; it stands in line {first} already', _at(event))
            self.keys[inner] = _at(event)
            mapping[key] = self._value(next(events), events, inner)
        return mapping

    def _checked(self, event: Any) -> str:
        text: str = event.value
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise self._fail("half of a surrogate pair is no character", _at(event))
        return text

    def _scalar(self, event: Any) -> Any:
        text = self._checked(event)
        if event.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _INT.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise self._fail("this number has too many digits", _at(event))
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            number = math.inf if _NOT_FINITE.fullmatch(text) else float(text)
            if not math.isfinite(number):
                raise self._fail(f"{text} is no number that a rule can use", _at(event))
            return number
        return text


def _at(event: Any) -> tuple[int, int]:
    return event.start_mark.line, event.start_mark.column
