"""A grid as trials: every choice of every axis with every other, for every seed; and the float networks they need first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from binarize.errors import RuleError, UsageError, did_you_mean
from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.rules.rule_set import RuleSet
from binarize.studies.grid.files import Files
from binarize.studies.grid.keys import DEFAULTS, FLOAT_KEYS, SOURCE_KEYS
from binarize.studies.grid.read import Grid
from binarize.studies.grid.trial import Trial

__all__ = ["chosen", "trials_of"]

# One choice of each axis: (axis, label, settings).
_Picked = tuple[tuple[str, str, Mapping[str, Any]], ...]


def trials_of(grid: Grid) -> list[Trial]:
    """The trials of a grid, each once, float networks before those that start from them.

    There are as many as the product of axes and seeds, and the float networks that these start from; float rows that differ
    only in what means nothing to them are one.

    Raises: RuleError, UsageError where settings are missing or contradict each other.
    """
    asked: dict[str, Trial] = {}
    for trial in _Expansion(grid).trials():
        asked.setdefault(trial.id, trial)
    # A float network that the grid lists itself goes by its name there.
    bases = {trial.base.id: trial.base for trial in asked.values() if trial.base is not None}
    every = {**bases, **asked}
    named: dict[str, str] = {}
    for trial in every.values():
        if named.setdefault(trial.name, trial.id) != trial.id:
            raise RuleError(
                f'two trials are called "{trial.name}"; give their axis as a mapping, a name for each choice'
            )
    return sorted(every.values(), key=lambda trial: trial.base is not None)


def chosen(trials: Sequence[Trial], only: str | None) -> list[Trial]:
    """The trials of such names, and the float networks that these need. Raises UsageError where there is none."""
    if only is None:
        return list(trials)
    hits = [trial for trial in trials if fnmatchcase(trial.name, only) or fnmatchcase(trial.group, only)]
    if not hits:
        names = [name for trial in trials for name in (trial.group, trial.name)]
        near = did_you_mean(only, names) or f"; there is {', '.join(trial.name for trial in trials[:3])}"
        raise UsageError(f'--only "{only}": no trial has such a name{near}')
    needed = {trial.id for trial in hits} | {trial.base.id for trial in hits if trial.base is not None}
    return [trial for trial in trials if trial.id in needed]


class _Expansion:
    """One grid on its way to trials."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._files = Files(grid.folder, first_here=tuple(grid.final))
        self._rules: dict[str, RuleSet] = {}

    def trials(self) -> Iterator[Trial]:
        """Every trial that the grid asks for, in its order; some may be the same."""
        choices = [[(axis.name, c.label, c.settings) for c in axis.choices] for axis in self.grid.axes]
        for picked in itertools.product(*choices):
            patch = {key: value for _, _, settings in picked for key, value in settings.items()}
            for seed in self.grid.seeds:
                given = {**self.grid.settings, **patch, **self.grid.final}
                if given.get("train") == "float":
                    yield self._float_row(picked, patch, seed)
                else:
                    yield self._binary(picked, patch, given, seed)

    def _binary(
        self, picked: _Picked, patch: Mapping[str, Any], given: Mapping[str, Any], seed: int
    ) -> Trial:
        settings = _said(given)
        train = settings.get("train")
        if train == "binary":
            settings["teacher"] = ["none"]
        elif train == "distilled" and settings.setdefault("teacher", ["source"]) == ["none"]:
            raise UsageError(
                "train: distilled needs a teacher, but teacher is none; leave it out for the float network"
            )
        alone = settings.get("start") == "scratch" and "source" not in settings.get("teacher", ["source"])
        irrelevant = ("teacher",) if train == "binary" else ()
        return self._trial(
            "distilled" if train == "distilled" else "binary",
            _labels(picked, [key for key in given if key not in irrelevant]),
            settings,
            seed,
            None if alone else self._base(patch, picked, seed),
        )

    def _float_row(self, picked: _Picked, patch: Mapping[str, Any], seed: int) -> Trial:
        settings = self._float_settings(patch)
        base = self._base(patch, picked, seed) if settings.get("prune") else None
        return self._trial("float", _labels(picked, [*FLOAT_KEYS, "train"]), settings, seed, base)

    def _base(self, patch: Mapping[str, Any], picked: _Picked, seed: int) -> Trial | None:
        """The float network that trials with these choices start from; None where none is trained."""
        if self.grid.float is None:
            return None
        shared = {key: value for key, value in patch.items() if key in SOURCE_KEYS}
        settings = self._float_settings(
            {**shared, **{k: v for k, v in self.grid.float.items() if k in shared}}
        )
        settings.pop("prune", None)
        labels = {axis: label for axis, label, choice in picked if choice.keys() & set(SOURCE_KEYS)}
        return self._trial("float", {**labels, "train": "float"}, settings, seed, None)

    def _float_settings(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        own = self.grid.float or {}
        given = {**self.grid.settings, **own, **patch, **self.grid.final}
        # Whoever teaches the binary networks does not teach the float one.
        teacher = {"teacher": own["teacher"]} if "teacher" in own else {}
        return _said(
            {key: value for key, value in given.items() if key in FLOAT_KEYS and key != "teacher"} | teacher
        )

    def _trial(
        self,
        kind: Literal["float", "binary", "distilled"],
        labels: Mapping[str, str],
        settings: Mapping[str, Any],
        seed: int,
        base: Trial | None,
    ) -> Trial:
        for key in ("model", "data"):
            if key not in settings:
                raise UsageError(
                    f"no {key} is named; settings: {{{key}: ...}} in the grid, or --set {key}=..."
                )
        binary = kind != "float"
        return Trial(
            kind,
            labels,
            seed,
            settings,
            rules=self._rule_set(settings) if binary else None,
            recipe=self._recipe(settings.get("recipe")) if binary else None,
            base=base,
            files=self._files.digests(settings),
            places=self._files.places(settings),
        )

    def _rule_set(self, settings: Mapping[str, Any]) -> RuleSet:
        scheme = settings.get("scheme")
        keys = ("shortcuts", "overrides", "keep_first", "keep_last")
        options = {key: settings[key] for key in keys if key in settings}
        mark = repr((scheme, options))
        if mark not in self._rules:
            shipped = scheme is None or scheme in builtin_rule_sets()
            rules = None if scheme is None or shipped else self._files.path("scheme", scheme)
            self._rules[mark] = load_rule_set(scheme if shipped else None, rules, **options)
        return self._rules[mark]

    def _recipe(self, name: str | None) -> Mapping[str, Any] | Literal["paper"] | None:
        from binarize.training.recipe import read_recipe

        if name is None or name == "paper":
            return "paper" if name else None
        return read_recipe(self._files.path("recipe", name))


def _labels(picked: _Picked, relevant: Sequence[str]) -> dict[str, str]:
    """The choices that mean something to a trial with these settings; one without settings always does."""
    return {axis: label for axis, label, choice in picked if not choice or choice.keys() & set(relevant)}


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that say nothing."""
    return {key: value for key, value in settings.items() if key not in DEFAULTS or DEFAULTS[key] != value}
