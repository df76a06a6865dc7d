"""The data of one YAML document, built from the events of the parser, with the place of each value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from binarize.errors import RuleError
from binarize.rules.yaml.document import Document, Path, point_at

__all__ = ["BOOL", "MAX_DEPTH", "NULL", "Parser"]

# rules > rule > match > any > not > ...: nobody nests deeper by hand.
MAX_DEPTH = 24
# As many values as a name for each of a few thousand layers; reading them takes seconds.
MAX_VALUES = 20_000
# Integers up to 2**64 (seeds) have 20 digits; more is a mistake.
_MAX_DIGITS = 24
NULL = ("", "~", "null", "Null", "NULL")
BOOL = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
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


class Parser:
    """Builds the data of one document from the events of the YAML parser."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.lines = _BREAK.split(text)
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
        if text in NULL:
            return None
        if text in BOOL:
            return BOOL[text]
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
