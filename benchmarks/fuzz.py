"""Mutated files of every kind the product reads: whatever they hold, a project error comes out, and soon.

    python benchmarks/fuzz.py records --count 20000 --seed 0 [--workers 2] [--results fuzz.jsonl] [--show]

Kinds: records (binarize.json, sealed anew or not), rules, recipes, studies, trainings (finetune.json),
checkpoints (of trainings and calibrations, and results of studies), packed, pickles. Cases of a kind and seed are always
the same; what is done stands in the results file, a line a case as it comes, and is not done again. Children are forked
from a process that has imported everything: a signal ends one child, a case that takes longer than ten seconds of the
processor (or a minute in all) is killed, and the next child goes on behind it.

The summary counts outcomes: "read", the project's errors by class, and what must not be: other exceptions with the line
that raised them, signals, cases that took too long. Exit code 1 where there was any of these.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from binarize.errors import BinarizeError

# Kind -> its module, and what its `cases` takes beside the seed.
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "records": ("fuzz_records", {}),
    "rules": ("fuzz_rules", {"kind": "rules"}),
    "recipes": ("fuzz_rules", {"kind": "recipe"}),
    "studies": ("fuzz_rules", {"kind": "study"}),
    "trainings": ("fuzz_trainings", {}),
    "checkpoints": ("fuzz_checkpoints", {}),
    "packed": ("fuzz_packed", {}),
    "pickles": ("fuzz_pickles", {}),
}
# Of the processor, so that a busy machine finds the same; and in all, for what sleeps.
SECONDS, WALL_SECONDS = 10.0, 60.0
# What a child may take beside what its parent has.
MEMORY = 4 << 30
BATCH = 200
_SEEDS = 1_000_003


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--show", action="store_true", help="print each case that must not be")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = arguments.results or Path(f"fuzz-{arguments.kind}-{arguments.seed}.jsonl")
    done = _done(results)
    module, options = KINDS[arguments.kind]
    target = importlib.import_module(module)

    def cases(batch: int) -> Iterator[tuple[str, bytes]]:
        # Each batch has a seed of its own, so that none has to draw the cases in front of it.
        found: Iterator[tuple[str, bytes]] = target.cases(arguments.seed * _SEEDS + batch, **options)
        return itertools.islice(found, BATCH)

    # What all cases share is made once, before any child is forked.
    next(cases(0))
    todo = [i for i in range(arguments.count) if i not in done]
    with results.open("a", encoding="utf-8") as file:
        for index, what, outcome in run(cases, target.read, todo, arguments.workers):
            done[index] = outcome
            file.write(json.dumps({"case": index, "outcome": outcome, "what": what}) + "\n")
            file.flush()
            if arguments.show and _is_wrong(outcome):
                print(f"{index}: {outcome}\n    {what}", flush=True)
    counts = Counter(done.values())
    for outcome, count in counts.most_common():
        print(f"{count:7}  {'!' if _is_wrong(outcome) else ' '} {outcome}")
    return int(any(map(_is_wrong, counts)))


def _is_wrong(outcome: str) -> bool:
    return outcome.startswith(("foreign", "signal", "too long"))


def _done(results: Path) -> dict[int, str]:
    if not results.is_file():
        return {}
    lines = [line for line in results.read_text("utf-8").splitlines() if line.endswith("}")]
    return {found["case"]: found["outcome"] for found in map(json.loads, lines)}


def run(
    cases: Callable[[int], Iterator[tuple[str, bytes]]],
    read: Callable[[Path], None],
    todo: list[int],
    workers: int,
) -> Iterator[tuple[int, str, str]]:
    """(number of a case, what it was, what came of it), as they come."""
    batches = [list(batch) for _, batch in itertools.groupby(todo, lambda index: index // BATCH)]
    children: dict[int, dict[str, Any]] = {}
    while batches or children:
        while batches and len(children) < workers:
            batch = batches.pop()
            pid, pipe = _fork(cases, read, batch)
            children[pipe] = {
                "pid": pid,
                "left": list(batch),
                "since": (0.0, time.monotonic()),
                "text": b"",
                "what": "",
            }
        ready, _, _ = select.select(list(children), [], [], 0.5)
        for pipe in list(children):
            child = children[pipe]
            if pipe in ready:
                raw = os.read(pipe, 1 << 16)
                yield from _told(child, raw)
                if raw:
                    continue
            elif not _is_late(child):
                continue
            else:
                os.kill(child["pid"], signal.SIGKILL)
            _, status = os.waitpid(child["pid"], 0)
            os.close(pipe)
            del children[pipe]
            if child["left"]:
                late = pipe not in ready
                number = os.waitstatus_to_exitcode(status)
                outcome = (
                    "too long" if late else f"signal {-number}" if number < 0 else f"foreign exit {number}"
                )
                yield child["left"].pop(0), child["what"], outcome
                if child["left"]:
                    batches.append(child["left"])


def _is_late(child: dict[str, Any]) -> bool:
    cpu, wall = child["since"]
    return _cpu_seconds(child["pid"]) - cpu > SECONDS or time.monotonic() - wall > WALL_SECONDS


def _cpu_seconds(pid: int) -> float:
    """What a child has had of the processor; it is not waited for yet, so that it still stands in /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _told(child: dict[str, Any], raw: bytes) -> Iterator[tuple[int, str, str]]:
    """The cases that a child has told of; before each it says what it is."""
    *lines, child["text"] = (child["text"] + raw).split(b"\n")
    for line in lines:
        found = json.loads(line)
        child["since"] = (_cpu_seconds(child["pid"]), time.monotonic())
        if "what" in found:
            child["what"] = found["what"]
        else:
            yield child["left"].pop(0), child["what"], found["outcome"]


def _fork(
    cases: Callable[[int], Iterator[tuple[str, bytes]]], read: Callable[[Path], None], batch: list[int]
) -> tuple[int, int]:
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    try:
        os.close(out)
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        wanted = set(batch)
        with tempfile.TemporaryDirectory() as folder, open(into, "w", encoding="utf-8", buffering=1) as pipe:
            for index, (what, raw) in enumerate(cases(batch[0] // BATCH), batch[0] // BATCH * BATCH):
                if index in wanted:
                    path = Path(folder) / "case"
                    path.write_bytes(raw)
                    pipe.write(json.dumps({"what": what[:500]}) + "\n")
                    pipe.write(json.dumps({"outcome": _outcome(read, path)}) + "\n")
    finally:
        os._exit(0)


def _outcome(read: Callable[[Path], None], path: Path) -> str:
    try:
        read(path)
    except BinarizeError as error:
        return type(error).__name__
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = next((f for f in reversed(frames) if "/binarize/" in f.filename), frames[-1])
        return f"foreign {type(error).__name__} at {Path(own.filename).name}:{own.lineno}: {str(error)[:100]}"
    return "read"


if __name__ == "__main__":
    sys.exit(main())
