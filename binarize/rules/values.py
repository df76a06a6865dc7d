"""What single values in a rule file may be: words, numbers, patterns, parts.

Each value type is an annotation for pydantic with a check of ours, so that a message says what was found,
what was expected and the nearest word, and with the JSON Schema that editors see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError

from binarize.errors import did_you_mean
from binarize.rules.match import test_number
from binarize.rules.name_pattern import pattern
from binarize.schemes.part import PART_KEYS, is_part, may_be_named
from binarize.schemes.shipped import part_options, shipped_parts
from binarize.trust import is_teacher

__all__ = [
    "ACTIVATION",
    "ACTIVATIONS",
    "CLIP",
    "COMPARISON",
    "COUNT",
    "FLAG",
    "GROUPS",
    "ID",
    "INTEGER",
    "NONLINEARITY",
    "NUMBER",
    "PAD_VALUE",
    "PART",
    "PATTERN",
    "SCHEDULE_ENTRY",
    "SCHEMA_VERSION",
    "SIZE",
    "TEACHER",
    "TEXT",
    "USE",
    "WEIGHTS_ONLY",
    "checked_part",
    "fault",
    "found",
    "hint",
    "several",
    "unexpected",
    "unknown_key",
    "words",
]

WEIGHTS_ONLY = "weights-only:"

# Short names of nonlinearities in `activation:`.
ACTIVATIONS = {
    "hardtanh": "torch.nn.Hardtanh",
    "prelu": "torch.nn.PReLU",
    "rprelu": "reactnet.RPReLU",
    "maxout": "adabin.Maxout",
}

# How much of a text a message shows.
_SHOWN = 60

# A fault raised here carries its text and, where it lies deeper than the value itself, the path to it. Its
# type is "key" where a key is wrong, "unexpected" where the text goes on after the key's name, else "value".
_At = tuple[str, ...]


def hint(word: object, known: Iterable[str]) -> str:
    """` (did you mean "kernel"?)`, or nothing."""
    near = did_you_mean(str(word), known).removeprefix("; ")
    return f" ({near})" if near else ""


def found(value: object) -> str:
    """A value as a message names it."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
        case str():
            shown = "".join(c if c.isprintable() else "\ufffd" for c in value[:_SHOWN])
            return f'"{shown}{"..." * (len(value) > _SHOWN)}"'
    return str(value)[:_SHOWN]


def fault(text: str, at: _At = (), kind: str = "value") -> PydanticCustomError:
    """A fault for pydantic to gather."""
    return PydanticCustomError(kind, "{text}", {"text": text, "at": at})


def unexpected(value: object, expected: str, near: str = "") -> PydanticCustomError:
    """The fault that a value is not what was expected."""
    return fault(f"is {found(value)}; expected {expected}{near}", kind="unexpected")


def unknown_key(what: str, key: str, known: Iterable[str], at: _At = ()) -> PydanticCustomError:
    """The fault that a mapping has a key it should not have."""
    return fault(f'unknown {what} "{key}"{hint(key, known)}', (*at, key), "key")


def _checked(check: Callable[[Any], Any], **schema: object) -> Any:
    return Annotated[Any, PlainValidator(check), WithJsonSchema(schema)]


def words(*choices: str, synonyms: Mapping[str, str] | None = None) -> Any:
    """One of the words; a synonym is turned into the word it stands for."""
    known = [*choices, *(synonyms or ())]
    expected = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise unexpected(value, expected, hint(value, known))
        return (synonyms or {}).get(value, value)

    return _checked(check, enum=known)


class _OneOrList:
    """In the JSON Schema: the item itself, or a list of it."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        array = handler(core)
        return {"anyOf": [array["items"], array]}


def several(item: Any) -> Any:
    """One value or a list; the checked data has the list."""
    as_list = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
    return Annotated[list[item], as_list, _OneOrList()]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise unexpected(value, "text; put it into quotes" if _is_number(value) else "text")
    return value


def _teacher(value: object) -> str:
    text = _text(value)
    if not is_teacher(text):
        expected = (
            "source, none, torchvision:NAME or timm:NAME; what runs code is named by --teacher (teacher=...)"
        )
        raise unexpected(value, expected)
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise unexpected(value, "true or false")
    return value


def _number(value: object) -> int | float:
    if not _is_number(value):
        raise unexpected(value, "a number")
    return value  # type: ignore[return-value]


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise unexpected(value, "a whole number")
    return value


def _count(value: object) -> int:
    if _integer(value) < 1:
        raise unexpected(value, "1 or more")
    return value  # type: ignore[return-value]


def _comparison(*also: str) -> Callable[[object], int | str]:
    def check(value: object) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool):
            test_number(value, 0)
            return value
        if isinstance(value, str):
            is_size = "3x3" in also and len(value) < 20 and all(n.isdecimal() for n in value.split("x"))
            if value not in also and not is_size:
                test_number(value, 0)
            return value
        raise unexpected(value, 'a number or a comparison such as ">=64"')

    return check


def _pattern(value: object) -> str:
    # The names inside a Sequential are numbers.
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise unexpected(value, "a name or a pattern")
    pattern(value)
    return value


def _id(value: object) -> str:
    if not isinstance(value, str) or not value or any(c in ".=" or c.isspace() for c in value):
        raise unexpected(value, 'a word without blanks, "." and "="')
    return value


def _use(value: object) -> str:
    if not isinstance(value, str) or not value or value == WEIGHTS_ONLY:
        raise unexpected(value, f'keep, the name of a scheme, or "{WEIGHTS_ONLY}" and that name')
    return value


def _activation(value: object) -> str:
    known = ["auto", "keep", "none", *ACTIVATIONS]
    if value in known:
        return str(value)
    if not isinstance(value, str) or not is_part(value):
        raise unexpected(value, ", ".join(known) + " or the name of a part", hint(value, known))
    checked_part(value)
    return value


def _clip(value: object) -> object:
    is_pair = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))
    if value is not None and not (is_pair and value[0] < value[1]):  # type: ignore[index]
        raise unexpected(value, "two numbers, the lower one first")
    return value


def checked_part(value: object, at: _At = ()) -> object:
    """A part, or a mapping of arguments that changes one; null and "none" stand for no part."""
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        _known_part(value, at)
    elif isinstance(value, Mapping):
        name_key = next((key for key in PART_KEYS if key in value), None)
        name = None if name_key is None else value[name_key]
        options = None if name_key is None else _known_part(name, (*at, name_key))
        for key, item in value.items():
            if key in PART_KEYS:
                if key != name_key:
                    raise fault(f'"{key}" names the part a second time', (*at, key), "key")
            elif options is not None and key not in options:
                raise unknown_key(f'option of "{name}":', key, options, at)
            elif is_part(item) or isinstance(item, Mapping):
                checked_part(item, (*at, key))
    else:
        raise unexpected(value, "the name of a part, or a mapping with the key part")
    return value


def _known_part(name: object, at: _At) -> list[str] | None:
    """The options of a part that exists; None where only importing it would tell."""
    known = shipped_parts()
    if not isinstance(name, str) or not is_part(name):
        expected = 'the name of a part such as "bireal.ApproxSign"'
        raise fault(f"is {found(name)}; expected {expected}{hint(name, known)}", at, "unexpected")
    files = {part.partition(".")[0] for part in known}
    if name not in known and name.rpartition(".")[0] in files:
        raise fault(f'there is no part "{name}"{hint(name, known)}', at)
    if not may_be_named(name):
        module = name.rpartition(".")[0]
        text = (
            "is neither a part of binarize.binarizers nor of torch.nn; a module of your own needs your word"
        )
        raise fault(f'"{name}" {text}: --trust {module} (trust=["{module}"])', at)
    return part_options(name)


def _pad_value(value: object) -> int | float:
    if not _is_number(value) or value not in (-1, 0, 1):
        raise unexpected(value, "0, 1 or -1")
    return value


def _schema_version(value: object) -> int:
    if value != 1 or isinstance(value, bool):
        raise unexpected(value, "1, the version of the format that this program reads")
    return 1


def _schedule_entry(value: object) -> object:
    if not isinstance(value, Mapping):
        raise unexpected(value, "a mapping with the keys target and kind")
    for key in ("target", "kind"):
        if not isinstance(value.get(key), str):
            raise fault(f"is {found(value.get(key))}; expected a word", (key,), "unexpected")
    for key, item in value.items():
        if not isinstance(item, str) and not _is_number(item):
            raise fault(f"is {found(item)}; expected a number or a word", (key,), "unexpected")
    return value


def _nonlinearity(value: object) -> object:
    if not isinstance(value, Mapping) or "position" not in value:
        return checked_part(value)
    places = ("after_add", "before_add")
    position = value["position"]
    if position not in places:
        text = f"is {found(position)}; expected {' or '.join(places)}{hint(position, places)}"
        raise fault(text, ("position",), "unexpected")
    checked_part({key: item for key, item in value.items() if key != "position"})
    return value


TEXT = _checked(_text, type="string")
TEACHER = _checked(_teacher, type="string")
FLAG = _checked(_flag, type="boolean")
NUMBER = _checked(_number, type="number")
INTEGER = _checked(_integer, type="integer")
COUNT = _checked(_count, type="integer", minimum=1)
PATTERN = _checked(_pattern, type=["string", "integer"])
COMPARISON = _checked(_comparison(), type=["integer", "string"])
SIZE = _checked(_comparison("3x3"), type=["integer", "string"])
GROUPS = _checked(_comparison("depthwise"), type=["integer", "string"])
ID = _checked(_id, type="string", pattern=r"^[^.=\s]+$")
USE = _checked(_use, type="string")
ACTIVATION = _checked(_activation, type="string")
SCHEMA_VERSION = _checked(_schema_version, const=1)
PAD_VALUE = _checked(_pad_value, enum=[0, 1, -1])
SCHEDULE_ENTRY = _checked(_schedule_entry, type="object", required=["target", "kind"])
CLIP = _checked(_clip, type=["array", "null"], items={"type": "number"}, minItems=2, maxItems=2)
PART = _checked(checked_part, type=["string", "object", "null"])
NONLINEARITY = _checked(_nonlinearity, type=["string", "object", "null"])
