"""How long `binarize` takes at the prompt and how much memory: python benchmarks/convert.py [NAME ...]

Each measurement is a fresh process of the command itself, with the file in the page cache; "in all" is what a person
waits for. The stages are those that the command reports with --json. Memory is the peak resident set of the process,
and how much of it is more than the imports alone take: for a model of 100 MiB or more, at most twice the model's size.
Compare the processor's seconds with those in all: where they differ much, the machine was doing something else too,
and the limits of seconds say nothing. Planning and rewriting beside torch.fx in one process: benchmarks/stages.py,
which this runs at its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import stages

COMMAND = [sys.executable, str(Path(__file__).parents[1] / "cli.py")]
# What the command imports before it looks at a model of torchvision.
IMPORTS = "import typer, rich, torch, torchvision"

# Seconds: of convert beyond reading and writing the file, of plan in all, of help beyond its libraries.
CONVERT_LIMIT, PLAN_LIMIT, HELP_LIMIT = 10.0, 4.0, 0.4
# Of the model's size, where that is LARGE.
MEMORY_LIMIT, LARGE = 2.0, 100 * 2**20
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """One process: wall-clock and processor seconds, peak resident bytes, and what it wrote to stdout."""

    seconds: float
    processor: float
    peak: int
    stdout: str

    @property
    def stages(self) -> dict[str, float]:
        """What the command says of its stages, and the rest."""
        stages: dict[str, float] = json.loads(self.stdout)["seconds"]
        return {**stages, "start, printing, end": self.seconds - sum(stages.values())}


def run(words: Sequence[str], folder: Path) -> Run:
    """Runs a command to its end in `folder`. Raises CalledProcessError where it fails."""
    with tempfile.TemporaryFile("w+", dir=folder) as out:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words)
        out.seek(0)
        return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out.read())


def fastest(words: Sequence[str], folder: Path, times: int) -> Run:
    """The fastest of several runs: what the others lost went to something else."""
    return min((run(words, folder) for _ in range(times)), key=lambda measured: measured.seconds)


def show(title: str, measured: Run, baseline: Run) -> None:
    """The stages of one command, its seconds and its memory."""
    print(f"\n{title}")
    for name, seconds in measured.stages.items():
        print(f"  {seconds:7.2f} s  {name}")
    above = (measured.peak - baseline.peak) / MIB
    print(f"  {measured.seconds:7.2f} s  in all, {measured.processor:.2f} s of the processor")
    print(f"  {measured.peak / MIB:7.0f} MiB peak, {above:.0f} MiB above the imports")


def verdict(name: str, seconds: float, limit: float) -> bool:
    """Prints a measurement beside its limit; whether it is within it."""
    print(f"  {seconds:7.2f} s  {name}, limit {limit:g} s: {'ok' if seconds <= limit else 'OVER'}")
    return seconds <= limit


def all_models(names: Sequence[str], folder: Path, baseline: Run) -> list[bool]:
    """A line a model: what `binarize convert torchvision:NAME` takes; whether each is within the limit of memory."""
    titles = ("importing", "reading", "capturing", "planning", "rewriting and checking", "writing")
    print(f"\nbinarize convert torchvision:NAME --scheme adabin --add-shortcuts, seconds\n{'':20s}", end="")
    print("".join(f"{title.split()[0]:>10s}" for title in titles) + "    in all   memory above the imports")
    within, sums = [], dict.fromkeys((*titles, "all"), 0.0)
    for name in names:
        options = ["--scheme", "adabin", "--add-shortcuts", "--json", "--force", "-o", "converted"]
        measured = fastest([*COMMAND, "convert", f"torchvision:{name}", *options], folder, 2)
        found = {title: measured.stages.get(title, 0.0) for title in titles} | {"all": measured.seconds}
        sums = {title: sums[title] + seconds for title, seconds in found.items()}
        size = json.loads(measured.stdout)["report"]["totals"]["float_bytes"]
        share = (measured.peak - baseline.peak) / size
        within.append(size < LARGE or share <= MEMORY_LIMIT)
        above = f"{(measured.peak - baseline.peak) / MIB:6.0f} MiB of {size / MIB:4.0f}"
        told = f" = {share:.2f}x{'' if within[-1] else ' OVER'}" if size >= LARGE else ""
        print(f"{name:20s}" + "".join(f"{s:10.2f}" for s in found.values()) + f"   {above}{told}", flush=True)
    print(f"{'sum':20s}" + "".join(f"{seconds:10.2f}" for seconds in sums.values()))
    return within


def main() -> int:
    names = sys.argv[1:] or stages.MODELS.split()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = "import torch, torchvision; torch.save(torchvision.models.vgg11(), 'vgg11.pt')"
        run([sys.executable, "-c", make], folder)
        size = (folder / "vgg11.pt").stat().st_size

        baseline = fastest([sys.executable, "-c", IMPORTS], folder, 3)
        print(f"imports alone: {baseline.seconds:.2f} s, {baseline.peak / MIB:.0f} MiB")
        options = ["--scheme", "adabin", "--add-shortcuts", "--json", "--force"]
        converted = fastest([*COMMAND, "convert", "vgg11.pt", *options], folder, 2)
        show(
            f"binarize convert vgg11.pt --scheme adabin --add-shortcuts ({size / 1e6:.0f} MB)",
            converted,
            baseline,
        )
        planned = fastest([*COMMAND, "plan", "torchvision:resnet50", "--json"], folder, 3)
        show("binarize plan torchvision:resnet50", planned, baseline)
        light = fastest([sys.executable, "-c", "import typer, rich"], folder, 5)
        helped = fastest([*COMMAND, "--help"], folder, 5)
        within = all_models(names, folder, baseline)

    print("\nlimits")
    beyond = converted.seconds - converted.stages["reading"] - converted.stages["writing"]
    within += [
        verdict("convert beyond reading and writing", beyond, CONVERT_LIMIT),
        verdict("plan in all", planned.seconds, PLAN_LIMIT),
        verdict("help beyond its libraries", helped.seconds - light.seconds, HELP_LIMIT),
    ]
    print("\nplanning and rewriting beside a symbolic trace with shapes")
    within.append(stages.table(names))
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
