"""What a converted model has seen: how images are shown to it, what its classes are called, on which data it was fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

__all__ = ["SMALL", "DataUse", "Preprocessing", "Seen", "Verb"]

# Below this side an image is shown as it is; above it, its rim is cut off as the published accuracies do.
SMALL = 96

Verb = Literal["convert", "calibrate", "finetune"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor: resized, cropped in the middle, scaled to [0, 1], normalized."""

    # (channels, height, width)
    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # Side of the crop over side of the resized image.
    crop: float = 1.0
    interpolation: str = "bilinear"
    # Where this comes from, for people.
    origin: str = field(default="", compare=False)

    @property
    def small(self) -> bool:
        """Whether images are so small that cutting off their rim loses what they show."""
        return min(self.size[1:]) < SMALL

    def __str__(self) -> str:
        """Size, mean, std and where they come from, in one line."""
        size = "x".join(map(str, self.size))
        parts = [size, f"mean {_numbers(self.mean)}", f"std {_numbers(self.std)}"]
        return ", ".join(parts) + (f": {self.origin}" if self.origin else "")

    def differs_from(self, other: Preprocessing) -> str:
        """What is another value here than there, in words; empty where all that is shown is the same."""
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in ("size", "mean", "std")]
        changed = [f"{name} {_numbers(there)}" for name, here, there in pairs if here != there]
        return ", ".join(changed)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that `to_json` wrote."""
        lists = {key: tuple(data[key]) for key in ("size", "mean", "std")}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class DataUse:
    """Data that a model was fitted on."""

    by: Verb
    # As it was named: a path, or a name such as digits.
    name: str
    images: int
    # Whether it has labels; a folder of images without class folders has none.
    labelled: bool = True
    # Whether the name opens it again; images that were given in memory have no such name.
    by_name: bool = True
    # Below which folder a name such as torch/cifar10 is looked up.
    root: str = ""


@dataclass(frozen=True)
class Seen:
    """All that is known of a model's images; the first time nothing."""

    preprocessing: Preprocessing | None = None
    # The command that last used, or was given, this preprocessing.
    shown_by: Verb | None = None
    # The names of the outputs, in their order; empty where they are unknown.
    classes: tuple[str, ...] = ()
    # The last use by each command, in the order of their last uses.
    data: tuple[DataUse, ...] = ()

    def remembered(self) -> Preprocessing | None:
        """The preprocessing, with its origin in the words of who looks back at it."""
        if self.preprocessing is None:
            return None
        guess = self.preprocessing.origin
        more = f", where it was {guess}" if guess.startswith("a guess") else ""
        return replace(self.preprocessing, origin=f"remembered from {self.shown_by}{more}")

    def showing(self, preprocessing: Preprocessing | None, by: Verb) -> Seen:
        """The same with images shown like this from now on; None changes nothing."""
        if preprocessing is None or preprocessing == self.preprocessing:
            return self
        return replace(self, preprocessing=preprocessing, shown_by=by)

    def using(self, use: DataUse) -> Seen:
        """The same with one more use of data, in place of the last one by the same command."""
        return replace(self, data=(*(old for old in self.data if old.by != use.by), use))

    def to_open(self, *, labelled: bool) -> DataUse | None:
        """The last data that a command opens by its name, with labels where these are asked for; None where there is none."""
        fit = (use for use in reversed(self.data) if use.by_name and (use.labelled or not labelled))
        return next(fit, None)

    def naming(self, classes: Sequence[str]) -> Seen:
        """The same with these names of classes; none change nothing."""
        return replace(self, classes=tuple(classes)) if classes else self

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Seen:
        """What `to_json` wrote."""
        shown = data["preprocessing"]
        return cls(
            None if shown is None else Preprocessing.from_json(shown),
            data["shown_by"],
            tuple(data["classes"]),
            tuple(DataUse(**use) for use in data["data"]),
        )


def _numbers(values: Sequence[float]) -> str:
    """Numbers as they are typed again."""
    return ",".join(f"{value:.4g}" for value in values)
