"""What data read from a file of ours may be: models for pydantic from our own dataclasses, and faults with their path.

A file is checked once, before anything is made of it. Numbers are bounded, texts and lists have a length, and no key is
unknown, so that the code behind the check meets what it was written for.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from binarize.errors import BinarizeError, SourceError, did_you_mean
from binarize.rules.values import found, unexpected

__all__ = [
    "COUNT",
    "FINITE",
    "JSON",
    "SIZE",
    "TEXT",
    "Checked",
    "check_data",
    "data_model",
    "of_kind",
]

# Far more than any model needs, and little enough to be read at once.
_MOST_TEXT = 1 << 18
_MOST_ITEMS = 1 << 17
# Values that are nested deeper were written by nobody.
_DEEPEST = 32
# Sizes of tensors fit into 63 bits, and so does every count of what a model computes.
_MOST = (1 << 63) - 1


class Checked(BaseModel):
    """A mapping of a file: types as they are written, no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, protected_namespaces=())


def _json(value: object, depth: int = 0) -> Any:
    """Any JSON value, no deeper and no longer than files of ours are."""
    if depth > _DEEPEST:
        raise unexpected(value, f"nested at most {_DEEPEST} deep")
    if isinstance(value, (list, dict)) and len(value) > _MOST_ITEMS:
        raise unexpected(value, f"of at most {_MOST_ITEMS} items")
    if isinstance(value, dict):
        for key, item in value.items():
            _json(key, depth + 1)
            _json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _json(item, depth + 1)
    elif isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise unexpected(value, "text without halves of characters")
    elif isinstance(value, int) and abs(value) > _MOST:
        raise unexpected(value, "a number of at most 63 bits")
    return value


JSON = Annotated[Any, AfterValidator(_json)]
TEXT = Annotated[str, Field(max_length=_MOST_TEXT)]
COUNT = Annotated[int, Field(ge=0, le=_MOST)]
SIZE = Annotated[int, Field(ge=1, le=_MOST)]
FINITE = Annotated[float, Field(allow_inf_nan=False)]

_models: dict[type, type[Checked]] = {}


def of_kind(hint: Any) -> Any:
    """What JSON holds where a dataclass has a field of that type: lists for tuples, mappings for dataclasses."""
    simple = {str: TEXT, int: COUNT, float: FINITE, Any: JSON, object: JSON}
    if isinstance(hint, type) and is_dataclass(hint):
        return data_model(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is None:
        return simple.get(hint, hint)
    if origin is Literal:
        return hint
    if origin in (Union, types.UnionType):
        return Union[tuple(of_kind(one) for one in inner)]  # noqa: UP007 (built, not written)
    if origin is tuple and Ellipsis not in inner:
        length = len(inner)
        either: Any = Union[tuple(map(of_kind, inner))]  # noqa: UP007
        return Annotated[list[either], Field(min_length=length, max_length=length)]
    if issubclass(origin, Mapping):
        return Annotated[dict[of_kind(inner[0]), of_kind(inner[1])], Field(max_length=_MOST_ITEMS)]  # type: ignore[misc]
    assert issubclass(origin, Sequence), hint
    return Annotated[list[of_kind(inner[0])], Field(max_length=_MOST_ITEMS)]  # type: ignore[misc]


def data_model(kind: type, of: Mapping[str, Any] | None = None, needed: Collection[str] = ()) -> Any:
    """The model of the mapping that `asdict` gives for a dataclass; fields with a default may be missing.

    `of` holds the kinds of fields of which the type says too little. `needed` are fields that may not be missing though
    they have a default: the code behind the check reads them by their key.
    """
    plain = of is None and not needed
    if plain and kind in _models:
        return _models[kind]
    hints = get_type_hints(kind)
    entries: dict[str, Any] = {}
    for f in fields(kind):
        required = f.name in needed or (f.default is MISSING and f.default_factory is MISSING)
        entries[f"key_{f.name}"] = (
            (of or {}).get(f.name) or of_kind(hints[f.name]),
            Field(... if required else None, alias=f.name),
        )
    model = create_model(kind.__name__, __base__=Checked, **entries)
    return _models.setdefault(kind, model) if plain else model


def check_data(
    model: type[BaseModel],
    data: object,
    where: str,
    way_out: str,
    error: type[BinarizeError] = SourceError,
) -> None:
    """Check data against a model.

    Raises: `error`, which names the first fault: `binarize.json: plan.decisions.3.action: expected ..., found ...`.
    """
    try:
        model.model_validate(data)
    except ValidationError as fault:
        raise error(
            f"{where}: {_words(model, data, fault.errors(include_url=False)[0])}\n  {way_out}"
        ) from None


# What pydantic says about the shape of data, in our words.
_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "string_type": "text",
    "string_unicode": "text without halves of characters",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "none_required": "null",
}


def _words(model: type[BaseModel], data: object, detail: ErrorDetails) -> str:
    kind, steps = detail["type"], _steps(data, detail["loc"], detail["type"] == "missing")
    path, value = ".".join(map(str, steps)), detail["input"]
    if kind == "missing":
        holder = ".".join(map(str, steps[:-1]))
        return f"{holder}{': ' * bool(holder)}damaged: it has no {str(steps[-1])!r}"
    if kind == "extra_forbidden":
        known = [info.alias or name for name, info in model.model_fields.items()] if len(steps) == 1 else []
        return f"{path}: unknown key{did_you_mean(str(steps[-1]), known)}"
    if "text" in detail.get("ctx", {}):
        # A check of ours, which says what was found as well, and may point deeper.
        at = ".".join((*map(str, steps), *map(str, detail["ctx"]["at"])))
        return f"{at} {detail['ctx']['text']}"
    if kind == "union_tag_invalid":
        key = str(detail["ctx"]["discriminator"]).strip("'")
        value = value.get(key) if isinstance(value, dict) else value
        return f"{path}.{key}: expected one of {detail['ctx']['expected_tags']}, found {found(value)}"
    expected = (
        _EXPECTED.get(kind) or detail["msg"].partition("should ")[2].removeprefix("be ") or detail["msg"]
    )
    return f"{path or 'the whole'}: expected {expected}, found {found(value)}"


def _steps(data: object, location: Sequence[str | int], missing: bool) -> list[str | int]:
    """The keys that lead to a value; pydantic also names the member of a union that it tried."""
    steps: list[str | int] = []
    for i, step in enumerate(location):
        here = isinstance(data, dict) and step in data, isinstance(data, list) and isinstance(step, int)
        if any(here):
            data = data[step]  # type: ignore[index]
            steps.append(step)
        elif missing and i == len(location) - 1:
            steps.append(step)
    return steps
