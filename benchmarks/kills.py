"""A training killed at random moments ends as if nothing had been: python benchmarks/kills.py [--kills 20] [--seed 0]

`binarize finetune` trains the bundled network on the bundled digits with a checkpoint every few steps. It is killed by
SIGKILL at a random moment, resumed, killed again, ...; after each series of kills it is resumed to its end, and every
tensor of the trained model has to equal that of the training that nobody disturbed, bit by bit.
"""

from __future__ import annotations

import argparse
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
        for first in range(0, arguments.kills, SERIES):
            out = Path(place) / f"killed-{first}"
            for kill in range(first, min(first + SERIES, arguments.kills)):
                process = train(start, out, resume=(out / "finetune.json").is_file())
                after = draw.uniform(0, 1.2 * seconds)
                ended = _killed(process, after)
                state = "had ended" if ended else _step(out)
                print(f"kill {kill + 1:2d} after {after:5.1f} s, {state}", flush=True)
                if ended:
                    break
            if not _finished(out):
                _finish(train(start, out, resume=(out / "finetune.json").is_file()))
            same = _same(out, whole)
            equal = equal and same
            print(f"resumed to the end: {'bit-equal' if same else 'DIFFERENT'}", flush=True)
            shutil.rmtree(out)
    print("every training ended bit-equal" if equal else "NOT equal")
    return 0 if equal else 1


def train(start: Path, out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
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
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise SystemExit(f"a training that nobody killed failed: {process.args!r}")


def _killed(process: subprocess.Popen[bytes], after: float) -> bool:
    """Kill it after so many seconds; whether it had ended by itself."""
    try:
        process.wait(after)
        _finish(process)
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def _step(out: Path) -> str:
    path = out / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return "before the first checkpoint"
    return f"checkpoint of step {torch.load(path, weights_only=True)['global_step']}"


def _finished(out: Path) -> bool:
    return (out / "model.safetensors").is_file()


def _same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    sys.exit(main())
