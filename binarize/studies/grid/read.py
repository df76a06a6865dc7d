"""A grid file, read: checked settings, axes of choices, seeds; and what the command line changes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from binarize.disk.file_name import is_file
from binarize.errors import BinarizeError, RuleError, UsageError, did_you_mean
from binarize.rules.files import builtin_rule_sets
from binarize.rules.text import parse, parse_value, plain, read_text
from binarize.rules.yaml.document import Document, Fault
from binarize.rules.yaml.document import Path as Place
from binarize.schemes.recipe import Recipe
from binarize.studies.grid.chain import Choice, chain
from binarize.studies.grid.keys import RECIPE_KEYS, SETTINGS, check_grid, check_settings
from binarize.studies.grid.trial import Resources
from binarize.studies.grid.words import NAMED, check_names

__all__ = ["Axis", "Grid", "read_grid"]

# Settings that are shares, and have to leave something.
_SHARES = ("dropout", "prune", "validation")


@dataclass(frozen=True)
class Axis:
    """What is varied: its name, and the choices in order."""

    name: str
    choices: tuple[Choice, ...]
    # Whether the choices build on each other.
    cumulative: bool = False


@dataclass(frozen=True)
class Grid:
    """A study, before it is written out as trials."""

    name: str
    settings: Mapping[str, Any]
    # Changes for the float network; None: it is not trained, the source's own weights are the start.
    float: Mapping[str, Any] | None = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    seeds: tuple[int, ...] = (0,)
    resources: Resources = field(default_factory=Resources)
    # Settings of every trial, whatever else says otherwise; they come from the command line.
    final: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    paper: str = ""
    # Where files that the grid names are looked for first.
    folder: Path = Path()

    def changed(self, changes: Sequence[str]) -> Grid:
        """The grid after "key=VALUE", each a setting of every trial, the values of an axis, or `seeds`.

        Raises: RuleError with the nearest key.
        """
        found = self
        for text in changes:
            found = found._changed(text)
        return found

    def _changed(self, text: str) -> Grid:
        key, equals, value = text.partition("=")
        key, where = key.strip(), f"--set {text}"
        if not equals:
            raise UsageError(f'--set "{text}": expected key=VALUE, as in epochs=1')
        data = parse_value(value, where)
        if key in ("seed", "seeds"):
            seeds = data if isinstance(data, list) else [data]
            checked = check_grid(Document(where, {"schema": 1, "seeds": seeds}))
            return replace(self, seeds=tuple(checked["seeds"]))
        if key not in SETTINGS:
            raise RuleError(f'{where}: no setting "{key}"{did_you_mean(key, [*SETTINGS, "seeds"])}')
        position = next((i for i, axis in enumerate(self.axes) if axis.name == key), None)
        if position is None:
            return replace(self, final={**self.final, **_checked({key: data}, where)})
        values = data if isinstance(data, list) else [data]
        choices = tuple(Choice(_label(key, value), _checked({key: value}, where)) for value in values)
        axes = (*self.axes[:position], Axis(key, choices), *self.axes[position + 1 :])
        return replace(self, axes=axes)


def read_grid(source: str | Path | Mapping[str, Any], changes: Sequence[str] = ()) -> Grid:
    """The grid of a file, or of a mapping as in a file. What `changes` will replace in it may be anything.

    Raises: RuleError that shows every fault in its place.
    """
    if isinstance(source, Mapping):
        document = Document("grid", plain(source, "grid"))
        folder, name = Path.cwd(), "study"
    else:
        document = parse(read_text(source))
        folder, name = Path(source).absolute().parent, Path(source).stem
    data = check_grid(document)
    # Whoever gives a mapping says what stands in it.
    named = () if isinstance(source, Mapping) else NAMED
    replaced = {text.partition("=")[0].strip() for text in changes}
    held = [key for key in named if key not in replaced]
    faults = [
        fault for place, settings in _all_settings(data) for fault in _faults(place, settings, folder, held)
    ]
    if faults:
        raise document.error(*faults)
    # In the order of the file, which the checked data does not keep.
    axes = [_axis(key, data["axes"][key]) for key in document.data.get("axes", ())]
    for key, steps in data.get("chains", {}).items():
        choices = chain(document, key, steps, data.get("steps", {}))
        axes.append(Axis(key, choices, cumulative=True))
    twice = {axis.name for axis in axes if sum(other.name == axis.name for other in axes) > 1}
    if twice:
        raise document.error(Fault(f"{min(twice)} is an axis already", ("chains", min(twice)), at_key=True))
    given = data.get("float", {})
    return Grid(
        name=data.get("name", name),
        settings=data.get("settings", {}),
        float=None if given == "none" else given,
        axes=tuple(axes),
        seeds=tuple(data.get("seeds", (0,))),
        resources=Resources(**data.get("machine", {})),
        description=data.get("description", ""),
        paper=data.get("paper", ""),
        folder=folder,
    )


def _axis(key: str, values: Any) -> Axis:
    if isinstance(values, Mapping):
        return Axis(key, tuple(Choice(name, patch) for name, patch in values.items()))
    return Axis(key, tuple(Choice(_label(key, value), {key: value}) for value in values))


# Settings whose values say by themselves what they are.
_SPEAKING = ("train", "scheme", "model", "data", "teacher", "recipe")


def _label(key: str, value: object) -> str:
    if isinstance(value, list):
        text = ",".join(map(str, value))
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    if key not in _SPEAKING:
        return f"{key}={text}"
    if ".py:" in text:
        return text.partition(".py:")[2]
    return Path(text).stem if text.endswith((".yaml", ".yml")) else text.replace("/", ".").strip(".")


def _checked(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = check_settings(Document(where, plain(settings, where)))
    for fault in _faults((), checked, Path.cwd()):
        raise RuleError(f"{where}: {fault.message}")
    return checked


def _all_settings(data: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every piece of settings in a grid, and where it stands."""
    yield ("settings",), data.get("settings", {})
    if isinstance(data.get("float"), Mapping):
        yield ("float",), data["float"]
    for name, patch in data.get("steps", {}).items():
        yield ("steps", name), patch
    for key, values in data.get("axes", {}).items():
        if isinstance(values, Mapping):
            yield from ((("axes", key, name), patch) for name, patch in values.items())
            continue
        for i, value in enumerate(values):
            # A value of an axis stands where its setting's name would.
            yield ("axes", key, i), {key: value}


def _faults(
    place: Place, settings: Mapping[str, Any], folder: Path, held: Sequence[str] = ()
) -> Iterator[Fault]:
    """What is wrong with values that have the right shape; those of `held` keys are held against the user's word."""
    for key, value in settings.items():
        try:
            if key in held:
                check_names(key, value, folder)
            _check_value(key, value, folder)
        except BinarizeError as error:
            at = place if place and isinstance(place[-1], int) else (*place, key)
            yield Fault(str(error).removeprefix("recipe: "), at)


def _check_value(key: str, value: Any, folder: Path) -> None:
    from binarize.training.data import Augment

    if key in RECIPE_KEYS:
        Recipe().changed({key: value})
    if key in ("augment", "rand_augment"):
        Augment.parse(value.removeprefix("usual").removeprefix("+") or "none")
    if key == "scheme":
        _check_scheme(value, folder)
    if key in _SHARES and not 0 <= value < 1:
        raise RuleError(f"{key} is {value:g}; expected a share, 0 or more and less than 1")


def _check_scheme(name: str, folder: Path) -> None:
    known = builtin_rule_sets()
    if name in known or is_file(folder / name) or is_file(name):
        return
    if name.endswith((".yaml", ".yml")):
        raise RuleError(f"scheme {name}: no such file, neither in {folder} nor here")
    raise RuleError(f'there is no scheme "{name}"{did_you_mean(name, known)}')
