"""`binarize.study`: carry out the trials of a grid, each once, and write what they came to.

What it writes to the folder `out`:
    results.jsonl                      one line a trial, appended when it finished or failed
    table.md, table.csv, table.json    one line a group of trials that differ in their seed alone
    plot.svg                           the same as a picture, where matplotlib is installed
    grid.json                          the grid as it was understood
    trials/                            the folder of each trial: its trained network, metrics.csv, finetune.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from binarize.atomic import check_place, whole_file
from binarize.claim import claimed
from binarize.errors import UsageError
from binarize.leftovers import is_empty
from binarize.study import table
from binarize.study.cluster import run_trials
from binarize.study.expand import chosen, trials_of
from binarize.study.grid import Grid, read_grid
from binarize.study.plot import draw
from binarize.study.results import Results, Row, rows_of
from binarize.study.trial import Resources, Trial
from binarize.trust import Word, trusting

__all__ = ["Study", "study"]

# Told the result of a trial, and how many are there of how many.
Listen = Callable[[Mapping[str, Any], int, int], None]


@dataclass(frozen=True)
class Study:
    """A study: its grid, the trials that were chosen of it, and what these came to so far."""

    grid: Grid
    folder: Path
    trials: tuple[Trial, ...]
    # All of the grid.
    every: tuple[Trial, ...]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Trial's id -> what it came to, of those that finished or failed."""
        return Results(self.folder / "results.jsonl").read()

    @cached_property
    def rows(self) -> list[Row]:
        """One row for each group of trials that differ in their seed alone: those chosen, and those with results."""
        results = self.results
        groups = {trial.group for trial in self.every if trial.id in results} | {t.group for t in self.trials}
        return rows_of([trial for trial in self.every if trial.group in groups], results)

    @property
    def failures(self) -> dict[str, str]:
        """Trial's name -> why it failed."""
        results = self.results
        found = [(trial.name, results.get(trial.id, {})) for trial in self.trials]
        return {name: result.get("reason", "") for name, result in found if result.get("state") == "failed"}

    def unfinished(self, retry: bool = False) -> list[Trial]:
        """The trials that are to be run; those that failed only with `retry`, or where another one needs them."""
        results = self.results
        states = {trial.id: results.get(trial.id, {}).get("state") for trial in self.trials}
        again = {key for key, state in states.items() if state is None or (retry and state == "failed")}
        bases = {
            trial.base.id: trial.base for trial in self.trials if trial.base is not None and trial.id in again
        }
        again |= {
            key for key, base in bases.items() if not (base.home(self.folder) / "model.safetensors").is_file()
        }
        return [trial for trial in self.trials if trial.id in again]

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown."""
        return table.to_markdown(self.grid.name, self.grid.description, self.rows)

    def write(self) -> list[Path]:
        """Write tables and picture; which files these are."""
        found = []
        for name, text in (
            ("table.md", self.to_markdown()),
            ("table.csv", table.to_csv(self.rows)),
            ("table.json", table.to_json(self.rows)),
        ):
            with whole_file(self.folder / name) as draft:
                draft.write_text(text, encoding="utf-8")
            found.append(self.folder / name)
        if any(row.shown is not None for row in self.rows) and self._draw():
            found.append(self.folder / "plot.svg")
        return found

    def _draw(self) -> bool:
        results = self.results
        top1: dict[str, list[float]] = {}
        for trial in self.every:
            if (value := results.get(trial.id, {}).get("top1")) is not None:
                top1.setdefault(trial.group, []).append(value)
        chain = next((axis.name for axis in self.grid.axes if axis.cumulative), None)
        try:
            with whole_file(self.folder / "plot.svg") as draft:
                draw(self.grid.name, self.rows, top1, draft, chain)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "matplotlib":
                raise
            return False
        return True


def study(
    grid: str | Path | Mapping[str, Any] | Grid,
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    only: str | None = None,
    dry_run: bool = False,
    retry: bool = False,
    address: str | None = None,
    jobs: int | None = None,
    resources: Resources | None = None,
    listen: Listen | None = None,
    trust: Sequence[Word] = (),
) -> Study:
    """Carry out the trials of a grid by Ray, and write results, tables and a picture to a folder.

    Trials that are finished there are not run again, and one that was interrupted goes on from its last checkpoint. A trial
    that fails is recorded with its reason, and the others go on.

    `grid`       a YAML file, or a mapping as in one
    `out`        the folder; None: study-NAME here
    `changes`    "key=VALUE" for every trial, as in "epochs=1"
    `only`       a pattern of names; the float networks that these trials start from come along
    `dry_run`    find out what would be run, and run nothing
    `retry`      run those that failed once more
    `address`    of a Ray cluster that is running; `out` must be a folder that all its machines see
    `jobs`       so many trials at once on this machine; None: as many as its processors are enough for
    `resources`  of each trial, in place of what the grid says; what the grid names is fetched with `download` alone
    `trust`      Python files, modules and folders of models that a grid file may name; a mapping needs no such word

    Raises: RuleError for the grid, UsageError where ray is missing, StoppedError where a signal asked for an end.

    Example:
        >>> found = binarize.study("examples/studies/schemes.yaml", changes=["data=digits", "epochs=1"])   # doctest: +SKIP
        >>> print(found.to_markdown())                                                                     # doctest: +SKIP
    """
    with trusting(*trust):
        return _study(grid, out, changes, only, dry_run, retry, address, jobs, resources, listen)


def _study(
    grid: str | Path | Mapping[str, Any] | Grid,
    out: str | Path | None,
    changes: Sequence[str],
    only: str | None,
    dry_run: bool,
    retry: bool,
    address: str | None,
    jobs: int | None,
    resources: Resources | None,
    listen: Listen | None,
) -> Study:
    read = grid if isinstance(grid, Grid) else read_grid(grid, changes)
    read = read.changed(changes)
    read = replace(read, resources=resources or read.resources)
    folder = Path(out) if out is not None else Path(f"study-{read.name}")
    every = trials_of(read)
    found = Study(read, folder.absolute(), tuple(chosen(every, only)), tuple(every))
    if dry_run:
        return found
    with claimed(found.folder, "study", parents=True):
        _open(found)
        _carry_out(found, retry, address, jobs, listen)
    return found


def _carry_out(
    found: Study, retry: bool, address: str | None, jobs: int | None, listen: Listen | None
) -> None:
    """Run what is missing, and write what all came to."""
    results = Results(found.folder / "results.jsonl")
    missing = found.unfinished(retry)
    done = len(found.trials) - len(missing)

    def record(result: Mapping[str, Any]) -> None:
        nonlocal done
        results.append(result)
        done += 1
        if listen is not None:
            listen(result, done, len(found.trials))

    if missing:
        run_trials(missing, found.folder, found.grid.resources, record, address=address, jobs=jobs)
    found.write()


def _open(found: Study) -> None:
    """Make the folder ready. Raises: UsageError where it holds something else."""
    folder = found.folder
    check_place(folder)
    ours = not folder.exists() or (folder / "grid.json").is_file()
    if not ours and not is_empty(folder):
        raise UsageError(f"{folder} holds other files and is not written to; name another folder (-o)")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "grid.json") as draft:
        draft.write_text(json.dumps(asdict(found.grid), indent=1, default=str), encoding="utf-8")
