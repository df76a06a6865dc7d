"""The parts of one binarization method: what `use: NAME` in a rule file means.

A part is named `file.Class` and resolved inside `binarize.binarizers`; a full dotted path reaches `torch.nn`
or a user's own module. Nothing here imports torch until a part is built.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from binarize.errors import RuleError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PART_KEYS", "PART_SLOTS", "Norm", "Part", "Scheme", "Shortcut", "is_part"]

Norm = Literal["missing", "never", "before_sign"]
Shortcut = Literal["never", "missing", "every"]

# A mapping with one of these keys names a part; `binarizer` reads better for the two that binarize.
PART_KEYS = ("part", "binarizer")

# The fields of a scheme that hold a part.
PART_SLOTS = ("weight", "input", "scale", "nonlinearity")

_BINARIZERS = "binarize.binarizers."
_FOLDER = Path(__file__).with_name("binarizers")

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
        kwargs = dict(self.kwargs)
        for key, value in patch.items():
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
        return all(
            name.startswith("torch.nn.") or _module_path(name).startswith(_BINARIZERS)
            for name in self.names()
        )

    def build(self, **context: object) -> nn.Module:
        """A new module. `context` (channels, channel_dim, axis) reaches the constructors that take it.

        Raises RuleError where the name leads to no `nn.Module` class or the class refuses the arguments.
        """
        cls = _resolve(self.name)
        accepted = inspect.signature(cls).parameters
        arguments: dict[str, object] = {key: value for key, value in context.items() if key in accepted}
        for key, value in self.kwargs.items():
            if key not in accepted:
                raise RuleError(f'part "{self.name}" takes no {key!r}{did_you_mean(key, accepted)}')
            arguments[key] = value.build(**context) if isinstance(value, Part) else value
        try:
            return cls(**arguments)
        except (TypeError, ValueError) as error:
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


def _module_path(name: str) -> str:
    """The module of a part: `adabin.Maxout` is in binarize/binarizers/adabin.py, else it is a full path."""
    path = name.rpartition(".")[0]
    return _BINARIZERS + path if (_FOLDER / f"{path}.py").is_file() else path


def _resolve(name: str) -> type[nn.Module]:
    from torch import nn

    path, class_name = _module_path(name), name.rpartition(".")[2]
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise RuleError(f'part "{name}": there is no module {path}') from error
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        known = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise RuleError(
            f'part "{name}": {path} has no nn.Module {class_name!r}{did_you_mean(class_name, known)}'
        )
    return cls


@dataclass(frozen=True)
class Scheme:
    """The parts of one method and the recipe it is trained with."""

    name: str
    paper: str = ""
    description: str = ""
    # None: the weights stay float.
    weight: Part | None = None
    # None: the inputs stay float (a weights-only scheme).
    input: Part | None = None
    # A learned factor per output channel, beside the scale that the weight binarizer brings itself.
    scale: Part | None = None
    # What stands where the float model had a ReLU in front of a sign; None: nothing.
    nonlinearity: Part | None = None
    position: Literal["after_add", "before_add"] = "after_add"
    # Where to insert BatchNorm: after a layer that none follows, never, or in front of the sign.
    norm: Norm = "missing"
    # Where to add shortcuts: nowhere, where the graph has none, or around every binary layer.
    shortcut: Shortcut = "never"
    # Channels that neither repeat nor average: no shortcut, or a float 1x1 convolution on it.
    projection: Literal["none", "conv1x1"] = "none"
    # What the binary input is padded with; 0 lies outside the two values.
    pad_value: float = 0.0
    # Latent weights are projected to this range after each step of the optimizer.
    clip: tuple[float, float] | None = None
    # Each entry: {target: "weight.estimator", kind: "ede", ...}.
    schedule: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    # The recipe measured best here, and the authors' own.
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    training_paper: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.nonlinearity is None:
            object.__setattr__(self, "position", "after_add")

    def patched(self, with_: Mapping[str, Any]) -> Scheme:
        """This scheme with some fields changed: the form of `with:` in a rule and of `scheme:` in a file.

        A part is replaced where the patch names one and keeps its class where the patch has arguments alone;
        recipes are merged; everything else is replaced.

        Example:
            >>> scheme.patched({"input": {"form": "code"}, "norm": "never"})
        """
        # In a file `position` is written inside `nonlinearity`; here it is a field of its own.
        known = [f.name for f in fields(self) if f.name not in ("name", "position")]
        changes: dict[str, Any] = {}
        for key, value in with_.items():
            if key not in known:
                raise RuleError(f'scheme "{self.name}": unknown key {key!r}{did_you_mean(key, known)}')
            if key == "nonlinearity" and isinstance(value, Mapping) and "position" in value:
                changes["position"] = value["position"]
                value = {k: v for k, v in value.items() if k != "position"}
            if key in PART_SLOTS:
                changes[key] = self._patched_slot(key, value)
            elif key == "clip":
                changes[key] = None if value is None else (float(value[0]), float(value[1]))
            elif key == "schedule":
                changes[key] = tuple(dict(entry) for entry in value)
            elif key in ("training", "training_paper"):
                changes[key] = {**getattr(self, key), **value}
            elif key == "pad_value":
                changes[key] = float(value)
            else:
                changes[key] = value
        return replace(self, **changes)

    def _patched_slot(self, key: str, value: object) -> Part | None:
        part = patch_part(getattr(self, key), value)
        if part is not None and not isinstance(part, Part):
            raise RuleError(
                f'scheme "{self.name}": {key} has no part to change by {value!r}; name one with "part"'
            )
        return part

    def to_json(self) -> dict[str, Any]:
        """Every field but the name as JSON values, in the form of `scheme:` in a rule file."""
        data: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            data[f.name] = _plain(value.to_json() if isinstance(value, Part) else value)
        position = data.pop("position")
        if self.nonlinearity is not None:
            part = data["nonlinearity"]
            data["nonlinearity"] = {
                **({"part": part} if isinstance(part, str) else part),
                "position": position,
            }
        del data["name"]
        return data

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Scheme:
        """The scheme whose `to_json` is `data`; keys that are missing have their defaults."""
        return cls(name).patched(data)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
