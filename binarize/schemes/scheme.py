"""The parts of one binarization method and its recipe: what `use: NAME` in a rule file means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from binarize.errors import RuleError, UsageError, did_you_mean, way
from binarize.schemes.part import Part, patch_part

__all__ = ["PART_SLOTS", "Downsample", "Norm", "Scheme", "Shortcut", "shortcut_mode"]

Norm = Literal["missing", "never", "before_sign"]
Shortcut = Literal["never", "missing", "every", "residual"]
Downsample = Literal["strided", "pool", "binary"]

# The fields of a scheme that hold a part.
PART_SLOTS = ("weight", "input", "scale", "nonlinearity")
# Fields that plans of earlier versions know nothing of.
_LATER = frozenset({"downsample", "first_activation", "last_activation", "head_norm"})


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
    # Where to add shortcuts: nowhere, where the graph has none, around every binary layer, or around those of them that
    # stand in a residual block.
    shortcut: Shortcut = "never"
    # Channels that neither repeat nor average: no shortcut, or a float 1x1 convolution on it.
    projection: Literal["none", "conv1x1"] = "none"
    # A learned factor per channel on each shortcut around one layer.
    shortcut_scale: Literal["none", "channel"] = "none"
    # The 1x1 convolution on a block's shortcut: float with its stride, float behind an average pooling, or binary.
    downsample: Downsample = "strided"
    # The ReLU behind the first layer, which stays float: it gives way as all do, nothing takes its place, or it stays.
    first_activation: Literal["replace", "drop", "keep"] = "replace"
    # The ReLU behind the last binary layers, which float layers alone read: it stays, or gives way as well.
    last_activation: Literal["keep", "replace"] = "keep"
    # Whether BatchNorm is inserted between a pooled feature map and the linear layer that gives the output.
    head_norm: Literal["never", "missing"] = "never"
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
        """Every field but the name as JSON values, in the form of `scheme:` in a rule file.

        Fields of later versions are left out where they say nothing, so that what was saved before reads the same.
        """
        data: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in _LATER and value == f.default:
                continue
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


def shortcut_mode(add_shortcuts: bool | None, shortcuts: str | None) -> Shortcut | None:
    """The mode that was asked for: `add_shortcuts` True is short for "missing", False for "never".

    Raises: UsageError, where the two contradict each other, or the mode is none of the three.
    """
    modes = get_args(Shortcut)
    if shortcuts is not None and shortcuts not in modes:
        said = way(f"--shortcuts {shortcuts}", f"shortcuts={shortcuts!r}")
        raise UsageError(f"{said}: expected {', '.join(modes)}{did_you_mean(shortcuts, modes)}")
    if add_shortcuts is None:
        return cast("Shortcut | None", shortcuts)
    short: Shortcut = "missing" if add_shortcuts else "never"
    if shortcuts not in (None, short):
        flag = way("--add-shortcuts" if add_shortcuts else "--no-shortcuts", f"add_shortcuts={add_shortcuts}")
        meant, given = (way(f"--shortcuts {mode}", f'shortcuts="{mode}"') for mode in (short, shortcuts))
        raise UsageError(f"{flag} means {meant}, but {given} is given too")
    return short
