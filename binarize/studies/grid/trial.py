"""One training of a study: what it is made of, what it is called, and what tells it from every other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from binarize.rules.rule_set import RuleSet

__all__ = ["Kind", "Resources", "Trial"]

Kind = Literal["float", "binary", "distilled"]

# Raised where the same settings come to mean another training.
_FORMAT = 1
_ID_DIGITS = 12
# Settings that rules, recipe and kind hold in their final form.
_HELD_ELSEWHERE = ("scheme", "shortcuts", "keep_first", "keep_last", "overrides", "recipe", "train")


@dataclass(frozen=True)
class Resources:
    """What each trial runs on; no part of what it is."""

    # Its threads too, whole ones.
    cpus: float = 1
    gpus: float = 0
    device: str = "auto"
    # Processes that read images, beside the threads; None: none for images in memory, else a few.
    workers: int | None = None
    # Where torchvision's data sets lie, and whether they may be downloaded to there.
    root: str = "data"
    download: bool = False

    @property
    def threads(self) -> int:
        """Threads of torch."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class Trial:
    """One training.

    The same settings, rules, files and seed give the same `id`, whatever the trial is called and wherever its files lie.
    """

    kind: Kind
    # Axis -> which of its choices this is, for the axes that mean something to it.
    labels: Mapping[str, str]
    seed: int
    # Keys of a grid's settings that are not their defaults.
    settings: Mapping[str, Any]
    # How layers become binary, the settings' shortcuts and overrides included; None for a float network.
    rules: RuleSet | None = None
    # What a recipe file says; "paper"; None: the scheme's recipe.
    recipe: Mapping[str, Any] | Literal["paper"] | None = None
    # The trained float network that it starts from or learns from.
    base: Trial | None = None
    # sha256 of the files that the settings name, by their key; and where they lie on this machine.
    files: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What it is called together with the other seeds."""
        return "/".join(self.labels.values()) or self.kind

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.group}/seed{self.seed}"

    @cached_property
    def id(self) -> str:
        """A digest of all that its result depends on."""
        identity = {
            "format": _FORMAT,
            "kind": self.kind,
            "seed": self.seed,
            "settings": {k: v for k, v in self.settings.items() if k not in _HELD_ELSEWHERE},
            "rules": None if self.rules is None else self.rules.to_json(),
            "recipe": self.recipe,
            "base": None if self.base is None else self.base.id,
            "files": self.files,
        }
        text = json.dumps(identity, sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]

    def home(self, study: Path) -> Path:
        """Its folder in a study's, the same whatever the trial is called."""
        return study / "trials" / f"{self.kind}-seed{self.seed}-{self.id}"

    def place(self, key: str) -> Any:
        """The value of a setting, a file's or folder's name made absolute."""
        return self.places.get(key, self.settings.get(key))

    def get(self, key: str, default: object = None) -> Any:
        """The value of a setting."""
        return self.settings.get(key, default)

    def to_json(self) -> dict[str, Any]:
        """Which trial it is, as JSON values."""
        return {
            "id": self.id,
            "name": self.name,
            "group": self.group,
            "labels": dict(self.labels),
            "kind": self.kind,
            "seed": self.seed,
            "settings": dict(self.settings),
            "float": None if self.base is None else self.base.id,
        }
