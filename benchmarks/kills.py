"""A training killed at random moments ends as if nothing had been: python benchmarks/kills.py [--kills 20] [--seed 0]

`binarize finetune` trains the bundled network on the bundled digits with a checkpoint every few steps. It is killed by
SIGKILL at a random moment, resumed, killed again, ...; after each series of kills it is resumed to its end, and every
tensor of the trained model has to equal that of the training that nobody disturbed, bit by bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

import binarize
from binarize.demo_data.digits import load_digits, trained_vgg

# Kills of one training before it is let to its end.
SERIES = 4
OPTIONS = ["--epochs", "4", "--checkpoint-minutes", "0.005", "--teacher", "none", "--set", "ema=0.99"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    equal = True
    with tempfile.TemporaryDirectory() as place:
        start = Path(place) / "start"
        binarize.save(
            binarize.convert(trained_vgg(), "adabin", example_input=load_digits().train_images[:256]), start
        )
        whole = Path(place) / "whole"
        began = time.monotonic()
        _finish(train(start, whole, resume=False))
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        killed = 0
        for number in itertools.count():
            if killed >= arguments.kills:
                break
            out = Path(place) / f"killed-{number}"
            for _ in range(SERIES):
                process = train(start, out, resume=(out / "finetune.json").is_file())
                after = draw.uniform(0, 1.2 * seconds)
                _kill(process, after)
                if _finished(out):
                    break
                killed += 1
                print(f"kill {killed:2d} after {after:5.1f} s, {_step(out)}", flush=True)
            if not _finished(out):
                _finish(train(start, out, resume=(out / "finetune.json").is_file()))
            same = _same(out, whole)
            equal = equal and same
            print(f"resumed to the end: {'bit-equal' if same else 'DIFFERENT'}", flush=True)
            shutil.rmtree(out)
    print("every training ended bit-equal" if equal else "NOT equal")
    return 0 if equal else 1


def train(start: Path, out: Path, *, resume: bool) -> subprocess.Popen[str]:
    """The command, begun."""
    words = [
        sys.executable,
        "-c",
        "from binarize.cli import app; app()",
        "finetune",
        str(start),
        "-o",
        str(out),
        "--device",
        "cpu",
    ]
    words += ["--resume"] if resume else ["--data", "digits", "--force", *OPTIONS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"a training that nobody killed failed:\n{errors}")


def _kill(process: subprocess.Popen[str], after: float) -> None:
    """Kill it after so many seconds, unless it has ended by itself."""
    try:
        process.wait(after)
        _finish(process)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _step(out: Path) -> str:
    path = out / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return "before the first checkpoint"
    return f"checkpoint of step {torch.load(path, weights_only=True)['global_step']}"


def _finished(out: Path) -> bool:
    record = out / "finetune.json"
    return record.is_file() and bool(json.loads(record.read_text("utf-8"))["finished"])


def _same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    sys.exit(main())
