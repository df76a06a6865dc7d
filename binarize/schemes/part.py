"""Parts: a class and its arguments as data, built when a layer needs it.

A part is named `file.Class` and resolved inside `binarize.binarizers`; `torch.nn.Class` is one of torch. A full dotted path
reaches a user's own module where the user's word covers that (see `binarize.trust`): no file makes it imported. Nothing here
imports torch until a part is built.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from binarize.errors import REFUSALS, RuleError, UntrustedSourceError, did_you_mean
from binarize.schemes.shipped import BINARIZERS, binarizer_files, part_options
from binarize.trust import are_part_arguments, is_trusted, quoted, trusted_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PART_KEYS", "Part", "foreign_modules", "is_part", "may_be_named", "patch_part"]

# A mapping with one of these keys names a part; `binarizer` reads better for the two that binarize.
PART_KEYS = ("part", "binarizer")

_TORCH = re.compile(r"torch\.nn\.[A-Z]\w*")
# The files of torch.nn.modules whose classes are parts: numbers in, as many numbers out, and nothing else done.
_TORCH_FILES = ("activation", "batchnorm", "dropout", "instancenorm", "normalization")
_NO_PARTS = re.compile(r"Lazy\w+|MultiheadAttention|SyncBatchNorm")

# "bireal.ApproxSign", "torch.nn.Hardtanh": dotted, and the last word begins with a capital.
_PART_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\.[A-Z]\w*")


def is_part(value: object) -> bool:
    """Whether a value in a rule file names a part: "bireal.ApproxSign" or {part: irnet.Ede, t: 0.1}."""
    if isinstance(value, str):
        return _PART_NAME.fullmatch(value) is not None
    return isinstance(value, Mapping) and any(key in value for key in PART_KEYS)


@dataclass(frozen=True)
class Part:
    """A class and its keyword arguments, as data.

    Example:
        >>> Part.from_json({"part": "irnet.Ede", "t": 0.1}).build()
        Ede(t=0.1, k=10.0)
    """

    # "irnet.Ede" inside binarize.binarizers, or a full dotted path ("torch.nn.Hardtanh").
    name: str
    # JSON values, or further parts.
    kwargs: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, data: object) -> Part:
        """A part from its name, or from {part: name, **kwargs} (`binarizer` is another word for `part`)."""
        if isinstance(data, str):
            return cls(data)
        if not isinstance(data, Mapping) or not is_part(data):
            raise RuleError(
                f"{data!r} is no part; expected its name, or a mapping with the key {PART_KEYS[0]!r}"
            )
        name = next(data[key] for key in PART_KEYS if key in data)
        kwargs = {key: value for key, value in data.items() if key not in PART_KEYS}
        return cls(str(name), {key: cls.from_json(v) if is_part(v) else v for key, v in kwargs.items()})

    def to_json(self) -> str | dict[str, Any]:
        """The name alone where there are no arguments, else {part: name, **kwargs}."""
        if not self.kwargs:
            return self.name
        kwargs = {k: v.to_json() if isinstance(v, Part) else v for k, v in self.kwargs.items()}
        return {"part": self.name, **kwargs}

    def patched(self, patch: Mapping[str, object]) -> Part:
        """The same class with some arguments changed; a mapping for a nested part changes that part."""
        kwargs, options = dict(self.kwargs), part_options(self.name)
        for key, value in patch.items():
            if options is not None and key not in options:
                raise RuleError(f'part "{self.name}" takes no {key!r}{did_you_mean(key, options)}')
            kwargs[key] = patch_part(kwargs.get(key), value)
        return replace(self, kwargs=kwargs)

    def names(self) -> Iterator[str]:
        """The names of this part and of the parts inside it."""
        yield self.name
        for value in self.kwargs.values():
            if isinstance(value, Part):
                yield from value.names()

    @property
    def shipped(self) -> bool:
        """Whether building it runs code of this package and of torch.nn alone."""
        return all(_is_ours(name) for name in self.names())

    def build(self, **context: object) -> nn.Module:
        """A new module. `context` (channels, channel_dim, axis) reaches the constructors that take it.

        Raises UntrustedSourceError where the name is of a module that the user did not allow; RuleError where it
        leads to no `nn.Module` class, or the arguments are none that the class takes.
        """
        cls = _resolve(self.name)
        given = {key: value for key, value in self.kwargs.items() if not isinstance(value, Part)}
        if _is_ours(self.name) and not are_part_arguments({**given, **context}):
            raise RuleError(f'part "{self.name}": its arguments are more than numbers and words: {given}')
        accepted = inspect.signature(cls).parameters
        arguments: dict[str, object] = {key: value for key, value in context.items() if key in accepted}
        for key, value in self.kwargs.items():
            if key not in accepted:
                raise RuleError(f'part "{self.name}" takes no {key!r}{did_you_mean(key, accepted)}')
            arguments[key] = value.build(**context) if isinstance(value, Part) else value
        try:
            return cls(**arguments)
        except REFUSALS as error:
            raise RuleError(
                f'part "{self.name}" cannot be built from {dict(self.kwargs)}: {error}'
            ) from error


def patch_part(old: object, patch: object) -> object:
    """What a slot holds after a patch: null clears it, a named part replaces it, else arguments change."""
    if is_part(patch):
        return Part.from_json(patch)
    if isinstance(patch, Mapping) and isinstance(old, Part):
        return old.patched(patch)
    return patch


def may_be_named(name: str) -> bool:
    """Whether a file may name this part: one of ours, of torch.nn, or of a module that the user's word covers."""
    module = name.rpartition(".")[0]
    return _is_ours(name) or is_trusted(module) or trusted_file(module) is not None


def foreign_modules(data: object) -> list[str]:
    """The modules of users' own parts anywhere in plain data, for whom naming a part in it is the user's word."""
    if isinstance(data, Part):
        return [module for name in data.names() for module in foreign_modules(name)]
    if isinstance(data, str):
        return [data.rpartition(".")[0]] if is_part(data) and not _is_ours(data) else []
    if isinstance(data, Mapping):
        return [module for value in data.values() for module in foreign_modules(value)]
    if isinstance(data, (list, tuple)):
        return [module for value in data for module in foreign_modules(value)]
    return []


def _is_ours(name: str) -> bool:
    """Whether resolving the name imports nothing but `binarize.binarizers` and `torch.nn`."""
    file = name.rpartition(".")[0].removeprefix(BINARIZERS)
    return file in binarizer_files() or _TORCH.fullmatch(name) is not None


def _resolve(name: str) -> type[nn.Module]:
    from torch import nn

    path, _, class_name = name.rpartition(".")
    if path.removeprefix(BINARIZERS) in binarizer_files():
        path = BINARIZERS + path.removeprefix(BINARIZERS)
        module: Any = importlib.import_module(path)
    elif _TORCH.fullmatch(name):
        module = nn
    else:
        module = _trusted_module(path, name)
    cls = vars(module).get(class_name)
    ours = module is nn or path.startswith(BINARIZERS)
    if not _is_class(cls, nn.Module) or (ours and not _defined_here(cls, path)):
        known = [
            key
            for key, value in vars(module).items()
            if _is_class(value, nn.Module) and (not ours or _defined_here(value, path))
        ]
        less = " that is a part" if ours and cls else ""
        near = did_you_mean(class_name, known)
        raise RuleError(f'part "{name}": {path} has no nn.Module {class_name!r}{less}{near}')
    return cls


def _is_class(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


def _defined_here(cls: type, path: str) -> bool:
    """Whether a class is the package's own, and no name that it imported from elsewhere."""
    if path != "torch.nn":
        return cls.__module__ == path
    files = [f"torch.nn.modules.{file}" for file in _TORCH_FILES]
    part = cls.__module__ in files and not _NO_PARTS.fullmatch(cls.__name__)
    return part or (cls.__module__, cls.__name__) == ("torch.nn.modules.linear", "Identity")


def _trusted_module(path: str, name: str) -> Any:
    """The user's module. Raises UntrustedSourceError where the user did not allow its import."""
    file = trusted_file(path)
    if file is None and not is_trusted(path):
        raise UntrustedSourceError(
            f"part {quoted(name)} is of no module of binarize.binarizers or torch.nn, and importing {path} was not "
            f"allowed\n  if you trust it: --trust {path} (trust=[{path!r}])"
        )
    from binarize.sources.user_code import import_place

    return import_place(path if file is None else str(file))
