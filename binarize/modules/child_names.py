"""Refuses a model of which a part cannot be reached by its name, before anything is done with it by names."""

from __future__ import annotations

from typing import Any

from torch import nn

from binarize.errors import SourceError

__all__ = ["check_names"]


def check_names(module: nn.Module, spec: str) -> None:
    """Raises SourceError, naming the part, where a child, parameter or buffer is not what its name gives.

    torch takes any text for a name where it is set as an attribute; what reads `model.layer.weight` later finds another
    thing then, or nothing.
    """
    waiting, seen = [("", module)], {id(module)}
    while waiting:
        path, part = waiting.pop()
        for held in (part._modules, part._parameters, part._buffers):
            for name, value in held.items():
                why = None if value is None else _why_unreachable(part, name, value)
                if why is not None:
                    where = f"a child of {path!a}" if path else "a part of the model"
                    raise SourceError(f"{spec}: {where} is named {name!a}, {why}; give it another name")
                if isinstance(value, nn.Module) and id(value) not in seen:
                    seen.add(id(value))
                    waiting.append((f"{path}.{name}" if path else name, value))


def _why_unreachable(part: nn.Module, name: str, value: object) -> str | None:
    if not name:
        return "which is no name"
    if "." in name:
        return "whose dot reads as a path"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "which is no text"
    # What torch keeps or calls under this name: assigning to it later would fail.
    if name in _TORCHS_OWN or _found(part, name) is not value:
        return f"and {type(part).__name__} has something else under that name"
    return None


_TORCHS_OWN = frozenset(vars(nn.Module())) | {"training"}


def _found(part: nn.Module, name: str) -> Any:
    """What the name gives, without running a property of the class."""
    for base in type(part).__mro__:
        if name in vars(base):
            return vars(base)[name]
    if name in vars(part):
        return vars(part)[name]
    return next(
        (table[name] for table in (part._parameters, part._buffers, part._modules) if name in table), None
    )
