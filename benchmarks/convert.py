"""How long `binarize` takes at the prompt and how much memory: python benchmarks/convert.py

Each row is a fresh process of the command itself, with the file in the page cache. "in all" is what the user waits
for; the stages are those that the command reports with --json. Memory is the peak resident set of the process, and
what of it importing the same libraries takes alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "cli.py")]
# What the command imports before it looks at a model.
IMPORTS = "import typer, rich, torch, torchvision, timm"

# Seconds beyond reading and writing the file, and in all.
CONVERT_LIMIT, PLAN_LIMIT, HELP_LIMIT = 10.0, 4.0, 0.4
MIB = 2**20


@dataclass(frozen=True)
class Run:
    """One process: wall-clock seconds, peak resident bytes, and what it wrote to stdout."""

    seconds: float
    peak: int
    stdout: str


def run(words: list[str], folder: Path) -> Run:
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
        return Run(seconds, usage.ru_maxrss * 1024, out.read())


def show(title: str, measured: Run, baseline: Run, limit: str) -> None:
    print(f"\n{title}")
    stages = json.loads(measured.stdout)["seconds"] if measured.stdout.startswith("{") else {}
    for name, seconds in {**stages, "everything else": measured.seconds - sum(stages.values())}.items():
        print(f"  {seconds:7.2f} s  {name}")
    print(f"  {measured.seconds:7.2f} s  in all   ({limit})")
    print(
        f"  {measured.peak / MIB:7.0f} MiB peak, {(measured.peak - baseline.peak) / MIB:.0f} MiB above the imports"
    )


def main() -> int:
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = "import torch, torchvision; torch.save(torchvision.models.vgg11(), 'vgg11.pt')"
        run([sys.executable, "-c", make], folder)
        baseline = run([sys.executable, "-c", IMPORTS], folder)
        print(f"importing alone: {baseline.seconds:.2f} s, {baseline.peak / MIB:.0f} MiB")

        words = ["convert", "vgg11.pt", "--scheme", "adabin", "--add-shortcuts", "--json"]
        converted = run([*COMMAND, *words], folder)
        stages = json.loads(converted.stdout)["seconds"]
        beyond = converted.seconds - stages["reading"] - stages["writing"]
        show(
            f"binarize convert vgg11.pt ({(folder / 'vgg11.pt').stat().st_size / 1e6:.0f} MB)",
            converted,
            baseline,
            f"{beyond:.2f} s beyond reading and writing; limit {CONVERT_LIMIT:g} s",
        )
        failed += ["convert"] if beyond > CONVERT_LIMIT else []

        planned = run([*COMMAND, "plan", "torchvision:resnet50", "--json"], folder)
        show("binarize plan torchvision:resnet50", planned, baseline, f"limit {PLAN_LIMIT:g} s")
        failed += ["plan"] if planned.seconds > PLAN_LIMIT else []

        light = min(run([sys.executable, "-c", "import typer, rich"], folder).seconds for _ in range(5))
        helped = min(run([*COMMAND, "--help"], folder).seconds for _ in range(5))
        print(
            f"\nbinarize --help: {helped:.2f} s, {helped - light:.2f} s beyond its libraries; limit {HELP_LIMIT} s"
        )
        failed += ["help"] if helped - light > HELP_LIMIT else []

    print(f"\nover the limit: {', '.join(failed)}" if failed else "\nall within their limits")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
