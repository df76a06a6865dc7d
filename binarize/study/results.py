"""What the trials of a study came to: one JSON line each, and rows in which seeds stand together."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from binarize.errors import UsageError
from binarize.study.results_schema import check_result
from binarize.study.trial import Trial

__all__ = ["Results", "Row", "rows_of"]


class Results:
    """results.jsonl: a line for each trial that finished or failed, appended when it does; the last of a trial counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Trial's id -> what it came to. A line that a killed process left unfinished is none.

        Raises: SourceError, where a line holds something else than a result.
        """
        if not self.path.is_file():
            return {}
        found = {}
        lines = self.path.read_bytes().decode("utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, 1):
            try:
                result = json.loads(line)
            except (ValueError, RecursionError):
                continue
            check_result(result, f"{self.path}: line {number}")
            found[result["id"]] = result
        return found

    def append(self, result: Mapping[str, Any]) -> None:
        """Write a line; it is on the disk when this returns.

        Raises: UsageError, where the file is a link: a folder of somebody else's leads nowhere.
        """
        if self.path.is_symlink():
            raise UsageError(f"{self.path} is a link; expected a file of its own")
        with self.path.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # After a line that was cut short a new one begins.
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(result).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Row:
    """One line of the table: the trials that differ in their seed alone. Shares are between 0 and 1, sizes in bytes.

    Numbers are None where no trial has them: without test images there is no `top1`.
    """

    name: str
    kind: str
    # Axis -> choice.
    labels: Mapping[str, str]
    seeds: tuple[int, ...]
    # Trials that failed, and those not run yet.
    failed: int
    missing: int
    # Mean, standard deviation (n - 1; None for one seed), least and most, on the test images.
    top1: float | None
    spread: float | None
    top1_min: float | None
    top1_max: float | None
    loss: float | None
    # On the images held out of the training.
    val_top1: float | None
    val_loss: float | None
    # Of all epochs of all seeds.
    epoch_seconds_min: float | None
    epoch_seconds_max: float | None
    # Of the process; and of the graphics card.
    memory: int | None
    device_memory: int | None
    flops: int | None
    bops: int | None
    ops: float | None
    float_bytes: int | None
    latent_bytes: int | None
    packed_bytes: int | None
    # Of training, the mean over seeds.
    minutes: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @property
    def shown(self) -> float | None:
        """The accuracy to look at: on test images, or without them on those held out."""
        return self.val_top1 if self.top1 is None else self.top1


def rows_of(trials: Sequence[Trial], results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row for each group of trials, in their order."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    return [_row(name, group, results) for name, group in groups.items()]


def _row(name: str, trials: Sequence[Trial], results: Mapping[str, Mapping[str, Any]]) -> Row:
    states = {trial.id: results.get(trial.id, {}).get("state") for trial in trials}
    finished = [trial for trial in trials if states[trial.id] == "finished"]
    done = [results[trial.id] for trial in finished]
    failed = sum(state == "failed" for state in states.values())
    top1 = _numbers(done, "top1")
    seconds = [value for result in done for value in result.get("seconds", ())]
    costs = [result.get("costs", {}) for result in done]
    return Row(
        name=name,
        kind=trials[0].kind,
        labels=dict(trials[0].labels),
        seeds=tuple(trial.seed for trial in finished),
        failed=failed,
        missing=len(trials) - len(done) - failed,
        top1=_mean(top1),
        spread=statistics.stdev(top1) if len(top1) > 1 else None,
        top1_min=min(top1, default=None),
        top1_max=max(top1, default=None),
        loss=_mean(_numbers(done, "loss")),
        val_top1=_mean(_numbers(done, "val_top1")),
        val_loss=_mean(_numbers(done, "val_loss")),
        epoch_seconds_min=min(seconds, default=None),
        epoch_seconds_max=max(seconds, default=None),
        memory=max(_numbers(done, "memory"), default=None),
        device_memory=max(_numbers(done, "device_memory"), default=None),
        # The same for every seed, unless what is pruned depends on it.
        **{key: max(_numbers(costs, key), default=None) for key in _COSTS},
        minutes=_mean(_numbers(done, "minutes")),
    )


_COSTS = ("flops", "bops", "ops", "float_bytes", "latent_bytes", "packed_bytes")


def _numbers(results: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
    return [result[key] for result in results if result.get(key) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
