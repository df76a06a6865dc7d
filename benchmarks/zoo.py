"""Whole zoos held to the laws of a conversion: python benchmarks/zoo.py --set torchvision

    --set NAME ...    torchvision, timm-modules, timm-plan, timm-random, hf, yolo, smp, ends (default: all)
    --only GLOB       models of such names
    --limit N         the first N that are not done yet
    --checks A,B      these checks instead of the set's own
    --retry           again what is recorded as failed
    --results FILE    another file of results
    --table           print what is recorded and run nothing

Each model is converted at the smallest input that it takes, in a process of its own with a time and a memory limit,
forked off one that has imported the libraries, so that a model costs seconds. Results are lines of
benchmarks/results/zoo.jsonl; an interrupted run goes on where it was. Needs scikit-learn (two photographs), and for
their sets transformers, ultralytics and segmentation-models-pytorch.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "1")

import argparse
import importlib.util
import json
import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch

# The laws and the models' inputs are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import zoo_checks
from zoo_sets import CHECKS, NEEDS, SETS, Set

RESULTS = Path(__file__).parent / "results" / "zoo.jsonl"
POLL = 0.05


def main() -> int:
    arguments = _arguments()
    chosen = arguments.set or list(SETS)
    done = stored(arguments.results)
    if not arguments.table:
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        for name in chosen:
            run_set(name, arguments, done)
    for name in chosen:
        print(summary(name, done))
    failed = [
        result
        for (name, _), result in done.items()
        if name in chosen and fnmatch(result["model"], arguments.only) and broken(result)
    ]
    for result in failed:
        print(f"  {result['set']} {line(result)}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", choices=list(SETS))
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--checks", type=lambda text: text.split(","), help=", ".join(CHECKS))
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


# --- results


def stored(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The recorded results by set and model; the last one of each counts."""
    if not path.is_file():
        return {}
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    return {(result["set"], result["model"]): result for result in lines}


def record(path: Path, result: Mapping[str, Any]) -> None:
    """Append a result."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def broken(result: Mapping[str, Any]) -> dict[str, str]:
    """The checks that do not hold, with the reason of each."""
    return {check: told for check, told in result["checks"].items() if told != "ok"}


def line(result: Mapping[str, Any]) -> str:
    """A result in one line."""
    told = "; ".join(f"{check}: {reason}" for check, reason in broken(result).items())
    ratio = f"  capture {result['ratio']:.1f}x" if result.get("ratio") else ""
    shape = "x".join(map(str, result.get("shape", ())))
    return (
        f"{result['model']:44s} {result.get('binary', '?'):>4}/{result.get('layers', '?'):<4} "
        f"{result.get('level', '?'):6s} {shape:14s} {result['seconds']:6.1f} s {result['gigabytes']:5.2f} GB{ratio}  "
        + (told or f"{len(result['checks'])} checks hold")
    )


def summary(name: str, done: Mapping[tuple[str, str], dict[str, Any]]) -> str:
    """A set in one line."""
    results = [result for (found, _), result in done.items() if found == name]
    if not results:
        return f"{name:13s} nothing recorded"
    good = [result for result in results if not broken(result)]
    text = (
        f"{name:13s} {len(good)} of {len(results)} ({100 * len(good) / len(results):.1f} %) hold every check"
    )
    checks: dict[str, int] = {}
    for result in results:
        for check in broken(result):
            checks[check] = checks.get(check, 0) + 1
    if checks:
        text += "; failures: " + ", ".join(f"{check} {count}" for check, count in sorted(checks.items()))
    ratios = [result["ratio"] for result in results if result.get("ratio")]
    if ratios:
        text += f"; capture + analysis {median(ratios):.1f}x a forward (median; largest {max(ratios):.1f}x)"
    seconds, largest = median(r["seconds"] for r in results), max(r["gigabytes"] for r in results)
    return f"{text}; {seconds:.1f} s a model (median), {largest:.1f} GB at most"


# --- running


def run_set(name: str, arguments: argparse.Namespace, done: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The models of a set that are not done yet, each in its own process."""
    chosen = SETS[name]
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        print(f"{name}: left out, since {', '.join(missing)} is not installed", flush=True)
        return
    wanted = [
        model
        for model in chosen.names()
        if fnmatch(model, arguments.only)
        and ((name, model) not in done or (arguments.retry and broken(done[name, model])))
    ][: arguments.limit]
    checks = tuple(arguments.checks or chosen.checks)
    unknown = set(checks) - set(CHECKS)
    if unknown:
        raise SystemExit(f"no check {', '.join(sorted(unknown))}; known: {', '.join(CHECKS)}")
    zoo_checks.warm_up(NEEDS.get(name, ()))
    for result in in_processes(wanted, checks, chosen, arguments.jobs):
        result = {"set": name, **result}
        record(arguments.results, result)
        done[name, result["model"]] = result
        print(line(result), flush=True)


def in_processes(
    models: Iterable[str], checks: tuple[str, ...], chosen: Set, jobs: int
) -> Iterable[dict[str, Any]]:
    """Results as they come, of so many processes at a time."""
    waiting, running = list(models), []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_Process(waiting.pop(0), checks, chosen))
        time.sleep(POLL)
        for process in list(running):
            result = process.result()
            if result is not None:
                running.remove(process)
                yield result


class _Process:
    """One model in a forked process."""

    def __init__(self, model: str, checks: tuple[str, ...], chosen: Set) -> None:
        self.model, self.limits = model, chosen
        self.started = time.monotonic()
        self.peak = 0
        # What it has told so far: a killed process leaves the checks that it had done.
        self.found: dict[str, Any] = {"checks": {}}
        fork = multiprocessing.get_context("fork")
        self.ours, theirs = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_work, args=(theirs, model, checks, chosen.meta), daemon=True)
        self.process.start()
        theirs.close()

    def result(self) -> dict[str, Any] | None:
        """None while it runs."""
        ended = not self.process.is_alive()
        self._listen()
        if ended:
            self.process.join()
            if self.process.exitcode != 0:
                self._fail(f"the process ended with code {self.process.exitcode}")
            return self._told()
        self.peak = max(self.peak, _resident(self.process.pid))
        reason = None
        if time.monotonic() - self.started > self.limits.seconds:
            reason = f"not done in {self.limits.seconds} s"
        elif self.peak > self.limits.gigabytes * 2**30:
            reason = f"more than {self.limits.gigabytes:g} GB"
        if reason is None:
            return None
        self.process.kill()
        self.process.join()
        self._listen()
        self._fail(reason)
        return self._told()

    def _listen(self) -> None:
        try:
            while self.ours.poll():
                key, value = self.ours.recv()
                if key in CHECKS:
                    self.found["checks"][key] = value
                else:
                    self.found[key] = value
        except EOFError:
            pass

    def _fail(self, reason: str) -> None:
        self.found["checks"][self.found.get("doing", "load")] = reason

    def _told(self) -> dict[str, Any]:
        self.found.pop("doing", None)
        seconds = time.monotonic() - self.started
        return {
            "model": self.model,
            **self.found,
            "seconds": round(seconds, 1),
            "gigabytes": round(self.peak / 2**30, 2),
        }


def _work(pipe: Connection, model: str, checks: tuple[str, ...], meta: bool) -> None:
    torch.set_num_threads(1)

    def tell(key: str, value: Any) -> None:
        pipe.send((key, value))

    try:
        zoo_checks.examine(model, checks, meta, tell)
    except BaseException as error:
        text = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        tell("load", f"{text} ({_place(error)})")
    pipe.close()


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _resident(pid: int | None) -> int:
    """Bytes in memory of a process; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [text.split()[1] for text in status.splitlines() if text.startswith("VmRSS")]
    return int(found[0]) * 1024 if found else 0


if __name__ == "__main__":
    sys.exit(main())
