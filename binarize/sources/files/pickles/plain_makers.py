"""The closed list of functions that a pickle may name to make plain values, each as one of our own.

Nothing that a file names is called: `collections.OrderedDict` in a pickle is carried out by `ordered` here.
"""

from __future__ import annotations

import enum
import functools
import pathlib
import re
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from binarize.sources.files.pickles.allow_list import StandIn
from binarize.sources.files.pickles.instance_dicts import HostileObject, check_attributes
from binarize.sources.files.pickles.numpy_makers import (
    array_state,
    dtype,
    dtype_state,
    numpy_names,
    reconstruct,
    scalar,
)

__all__ = ["PLAIN", "STATEFUL", "checked_keys", "constant", "enumerated"]

# Key types; tuples of them too. The hash of a text cannot be chosen, those of numbers can: there may be so many.
KEYS = (str, bytes, bool, int, float, type(None), torch.dtype)
KEY_ITEMS = 16
CHOSEN_KEYS = 1 << 16
DEVICE = re.compile(r"[a-z]{2,12}(:\d{1,2})?")


def checked_keys(keys: list[Any]) -> list[Any]:
    """Keys of a dictionary or members of a set that can be hashed, in time. Raises: ValueError."""
    chosen = 0
    for key in keys:
        if type(key) is str:
            continue
        chosen += 1
        plain = isinstance(key, (*KEYS, enum.Enum)) or (
            type(key) is tuple and len(key) <= KEY_ITEMS and all(isinstance(item, KEYS) for item in key)
        )
        if not plain:
            raise ValueError(f"a key of type {type(key).__name__}")
    if chosen > CHOSEN_KEYS:
        raise ValueError(f"more than {CHOSEN_KEYS:,} keys that are no text")
    return keys


def constant(name: str) -> object:
    """A type or a layout of torch by its name, None for anything else."""
    package, _, attribute = name.rpartition(".")
    found = getattr(torch, attribute, None) if package == "torch" else None
    return found if isinstance(found, (torch.dtype, torch.layout, torch.memory_format)) else None


def enumerated(kind: type[enum.Enum], args: tuple[object, ...]) -> enum.Enum:
    """The member of an enumeration with a plain value; the class is not called."""
    if len(args) == 1 and type(args[0]) in (int, str):
        for member in kind:
            if type(member.value) is type(args[0]) and member.value == args[0]:
                return member
    raise ValueError(f"no member of {kind.__name__}")


def ordered(pairs: object = ()) -> OrderedDict[Any, Any]:
    if not isinstance(pairs, (list, tuple)) or any(
        not isinstance(pair, (list, tuple)) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError("an OrderedDict of something else than pairs")
    checked_keys([pair[0] for pair in pairs])
    return OrderedDict(pairs)


def _metadata(made: OrderedDict[Any, Any], state: object) -> object:
    """The versions of the modules, which torch writes beside a state dict."""
    versions = state.get("_metadata") if isinstance(state, dict) and len(state) == 1 else None
    if not isinstance(versions, dict) or not all(
        isinstance(path, str) and isinstance(inner, dict) and _is_version(inner)
        for path, inner in versions.items()
    ):
        raise HostileObject("an OrderedDict in it has attributes")
    made._metadata = versions  # type: ignore[attr-defined]
    return made


def _is_version(found: dict[Any, Any]) -> bool:
    return all(
        isinstance(key, str) and type(value) in (int, bool, str) and (key != "version" or type(value) is int)
        for key, value in found.items()
    )


def counter(counts: object = None) -> Counter[Any]:
    if counts is not None and (type(counts) is not dict or any(type(n) is not int for n in counts.values())):
        raise ValueError("a Counter without counts")
    return Counter(counts)


def members(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise ValueError("a set of something else than a list")
    return set(checked_keys(list(items)))


def encoded(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding than latin-1")
    return text.encode("latin-1")


def octets(content: object = b"", encoding: object = None) -> bytearray:
    return bytearray(content if isinstance(content, bytes) else encoded(content, encoding))


def complex_number(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError("a complex number of something else than two numbers")
    return complex(real, imaginary)


def size(numbers: object) -> torch.Size:
    if not isinstance(numbers, tuple) or any(type(n) is not int or abs(n) >= 1 << 62 for n in numbers):
        raise ValueError("a size of something else than whole numbers")
    return torch.Size(numbers)


def device(kind: object, index: object = None) -> torch.device:
    if not isinstance(kind, str) or not DEVICE.fullmatch(kind):
        raise ValueError("a device without a name")
    if index is None:
        return torch.device(kind)
    if not isinstance(index, int) or not -1 <= index < 100:
        raise ValueError("a device with an impossible number")
    return torch.device(kind, index)


def layout(name: object) -> torch.layout:
    found = constant(name) if isinstance(name, str) else None
    if not isinstance(found, torch.layout):
        raise ValueError("an unknown layout")
    return found


def path(*parts: object, kind: type[pathlib.PurePath]) -> pathlib.PurePath:
    """A path that touches no disk."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise ValueError("a path of something else than text")
    return kind(*texts)


def partial(function: object) -> Any:
    """`functools.partial` of a class or function of the list."""
    if isinstance(function, StandIn):
        return function
    if not callable(function) or isinstance(function, nn.Module):
        raise HostileObject("a functools.partial in it is of no function of the list")
    return functools.partial(function)


def _partial_state(made: Any, state: object) -> Any:
    if isinstance(made, StandIn):
        return made
    function, args, keywords, rest = state if isinstance(state, tuple) and len(state) == 4 else (None,) * 4
    if function is not made.func or type(args) is not tuple or not isinstance(keywords, dict) or rest:
        raise HostileObject("a functools.partial in it has a state of its own")
    if not all(isinstance(name, str) for name in keywords):
        raise ValueError("a functools.partial with names that are none")
    return functools.partial(function, *args, **keywords)


def _attributes(made: Namespace, state: object) -> Namespace:
    vars(made).update(check_attributes(Namespace, state))
    return made


# Name -> what makes it instead.
PLAIN: dict[str, Callable[..., object]] = {
    "_codecs.encode": encoded,
    "argparse.Namespace": Namespace,
    "builtins.bytearray": octets,
    "builtins.complex": complex_number,
    "builtins.set": members,
    "collections.Counter": counter,
    "collections.OrderedDict": ordered,
    "functools.partial": partial,
    "numpy.dtype": dtype,
    "pathlib.PosixPath": functools.partial(path, kind=pathlib.PurePosixPath),
    "pathlib.WindowsPath": functools.partial(path, kind=pathlib.PureWindowsPath),
    "torch.Size": size,
    "torch.device": device,
    "torch.serialization._get_layout": layout,
    **dict.fromkeys(numpy_names("_reconstruct"), reconstruct),
    **dict.fromkeys(numpy_names("scalar"), scalar),
}
# And what takes the state that the pickle gives it afterwards; everything else takes none.
STATEFUL: dict[str, Callable[[Any, object], object]] = {
    "argparse.Namespace": _attributes,
    "collections.OrderedDict": _metadata,
    "functools.partial": _partial_state,
    "numpy.dtype": dtype_state,
    **dict.fromkeys(numpy_names("_reconstruct"), array_state),
}
