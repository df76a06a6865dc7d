"""Every command is killed at each of its file operations, and repeated: python benchmarks/kills.py [--only NAME] [--every 1]

A kill between two file operations leaves the same disk as one at the second of them, so that these are all the moments
there are; of a write the first half is written. kills.c counts the operations of one process, those of native code too.
After each kill a folder that stood there is the old or the new one, and the same words again end with the same files,
bit for bit but for seconds, and with nothing else beside them. Results are appended to --out; what stands there is not
done again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Where all of it happens: the folder's name stands in what is written.
WORK = Path(tempfile.gettempdir()) / "binarize-kills" / "work"
START = WORK.with_name("start")
# So that each epoch and each layer writes where it stands.
TRAINING = (
    "--data digits --limit 64 --epochs 1 --batch-size 32 --teacher none --device cpu --checkpoint-minutes 0"
)
FITTING = "--data digits --limit 32 --steps 1 --no-signs"


@dataclass(frozen=True)
class Case:
    """A command, and what stands there before it."""

    name: str
    words: str
    # The folder or file that it writes.
    target: str
    # Commands that come first.
    before: tuple[str, ...] = ()


NET = "convert vgg.pt --scheme bireal --seed 0 -o net"
CASES = (
    Case("convert", NET, "net"),
    Case("convert, deep", "convert vgg.pt --scheme bireal -o deep/er/net --emit folder --emit pt", "deep/er/net"),
    Case("convert --force", f"{NET} --force", "net", ("convert vgg.pt --scheme adabin -o net",)),
    Case("convert --calibrate", f"{NET} --calibrate digits --limit 32 --steps 1", "net"),
    Case("calibrate", f"calibrate net {FITTING}", "net", (NET,)),
    Case("calibrate -o", f"calibrate net {FITTING} -o new", "new", (NET,)),
    Case("finetune", f"finetune net {TRAINING}", "net", (NET,)),
    Case("finetune -o", f"finetune net {TRAINING} -o new", "new", (NET,)),
    Case("finetune --force", f"finetune net {TRAINING} --force", "net", (NET, f"finetune net {TRAINING} --seed 1")),
    Case("pack", "pack net", "net/packed.safetensors", (NET,)),
    Case("pack --force", "pack net --force", "net/packed.safetensors", (NET, "pack net --rest fp16")),
    Case("export c", "export net --format c", "net/net.c", (NET,)),
    Case("export onnx --force", "export net --format onnx --force", "net/net.onnx", (NET, "export net --format onnx")),
    Case("export openvino", "export net --format openvino", "net/net.xml", (NET,)),
    Case(
        "export openvino --force",
        "export net --format openvino --force",
        "net/net.xml",
        (NET, "export net --format openvino"),
    ),
    Case("eval --out", "eval net --data digits --limit 32 --float none --out said.json", "said.json", (NET,)),
    Case("rules new", "rules new mine.yaml", "mine.yaml"),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--every", type=int, default=1, help="one operation of so many")
    parser.add_argument("--out", type=Path, default=Path("results/kills.jsonl"))
    arguments = parser.parse_args()
    if "kills.so" not in os.environ.get("LD_PRELOAD", ""):
        return _with_library()
    _prepare()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = _done(arguments.out)
    with arguments.out.open("a", encoding="utf-8") as out:
        for case in CASES:
            if arguments.only in case.name:
                for result in kill(case, arguments.every, done):
                    out.write(json.dumps(result) + "\n")
                    out.flush()
    return _summary(_done(arguments.out))


def kill(case: Case, every: int, done: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What came of the kills that are not done yet."""
    _start(case)
    code, operations, text = run(case.words, 0)
    if code:
        raise SystemExit(f"{case.name}: fails without a kill:\n{text}")
    wanted = WORK.with_name("wanted")
    shutil.rmtree(wanted, ignore_errors=True)
    shutil.copytree(WORK, wanted)
    for number in range(1, operations + 1, every):
        key = f"{case.name}/{number}"
        if key in done:
            continue
        _restore()
        code, _, _ = run(case.words, number)
        faults = [] if code == -9 else [f"was not killed but ended with {code}"]
        faults += _broken(case, wanted)
        code, _, text = run(case.words, 0)
        if code:
            faults.append(f"repeated: {code}: {text[-600:]}")
        else:
            faults += differences(WORK, wanted)
        yield {"key": key, "case": case.name, "operation": number, "of": operations, "faults": faults}
        print(f"{case.name}: {number} of {operations} {'; '.join(faults) or 'equal'}", flush=True)


def run(words: str, at: int) -> tuple[int, int, str]:
    """(exit code, or minus the signal; file operations; what it said) of a command killed at one of them, or at none."""
    ready, told = os.pipe()
    said = WORK.with_name("said")
    pid = os.fork()
    if not pid:
        library = ctypes.CDLL(None)
        os.chdir(WORK)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        library.kills_begin(os.fsencode(WORK), ctypes.c_long(at), 1)
        code = _command(words)
        os.write(told, str(library.kills_count()).encode())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(told)
    count = os.read(ready, 100)
    os.close(ready)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, int(count or 0), said.read_text("utf-8")


def _command(words: str) -> int:
    from binarize.cli import app

    sys.argv = ["binarize", *words.split()]
    try:
        app(words.split())
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99
    return 0


def differences(found: Path, wanted: Path) -> list[str]:
    """What differs between two folders, but for times."""
    names = {str(path.relative_to(folder)) for folder in (found, wanted) for path in folder.rglob("*")}
    return [name for name in sorted(names) if not _same(found / name, wanted / name)]


def _same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    if one.is_dir():
        return other.is_dir()
    if one.read_bytes() == other.read_bytes():
        return True
    read = {".json": _json, ".csv": _csv, ".ckpt": _checkpoint, ".md": _text, ".html": _text}.get(one.suffix)
    return read is not None and read(one) == read(other)


def _text(path: Path) -> str:
    return re.sub(r"[\d.]+ minutes", "minutes", path.read_text("utf-8"))


def _json(path: Path) -> Any:
    return _timeless(json.loads(path.read_text("utf-8")))


def _csv(path: Path) -> Any:
    return [_timeless(row) for row in csv.DictReader(path.read_text("utf-8").splitlines())]


def _checkpoint(path: Path) -> Any:
    import torch

    return _timeless(torch.load(path, weights_only=True))


def _timeless(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        # A digest is of the times too.
        return {
            key: _timeless(item) for key, item in value.items() if key not in ("seconds", "minutes", "sha256")
        }
    if isinstance(value, (list, tuple)):
        return [_timeless(item) for item in value]
    return (value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value


def _broken(case: Case, wanted: Path) -> list[str]:
    """Whether a model that stood there is neither the old nor the new one."""
    old = START / case.target
    if not old.exists():
        return []
    parts = ("binarize.json", "model.safetensors") if old.is_dir() else ("",)
    found = [(WORK / case.target / name if name else WORK / case.target) for name in parts]
    # Of an export of several files the first is taken away while the others change.
    if case.name == "export openvino --force" and not found[0].exists():
        return []
    if not all(path.is_file() for path in found):
        return ["nothing whole under its name"]
    for whole in (START, wanted):
        if all(p.read_bytes() == (whole / p.relative_to(WORK)).read_bytes() for p in found):
            return []
    return ["neither old nor new under its name"]


def _start(case: Case) -> None:
    shutil.rmtree(START, ignore_errors=True)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    shutil.copy(WORK.with_name("vgg.pt"), WORK)
    for words in case.before:
        code, _, text = run(words, 0)
        if code:
            raise SystemExit(f"{case.name}: {words}:\n{text}")
    shutil.copytree(WORK, START)


def _restore() -> None:
    shutil.rmtree(WORK)
    shutil.copytree(START, WORK)


def _prepare() -> None:
    """All that is imported once, for the processes that are forked."""
    import torch

    torch.set_num_threads(1)
    for name in ("commands.finetune", "packed.packing", "training.fit", "exporters.prepare"):
        importlib.import_module(f"binarize.{name}")
    from binarize.calibration import progress
    from binarize.demo.digits import trained_vgg

    progress.SECONDS = 0.0
    WORK.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trained_vgg(), WORK.with_name("vgg.pt"))


def _with_library() -> int:
    """This program again, with the library that counts."""
    WORK.parent.mkdir(parents=True, exist_ok=True)
    library = WORK.with_name("kills.so")
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-w", "-o", library, HERE / "kills.c", "-ldl"], check=True
    )
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def _done(path: Path) -> dict[str, Any]:
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text("utf-8").splitlines():
            result = json.loads(line)
            found[result["key"]] = result
    return found


def _summary(results: dict[str, Any]) -> int:
    bad = [result for result in results.values() if result["faults"]]
    for case in CASES:
        mine = [result for result in results.values() if result["case"] == case.name]
        if mine:
            right = sum(not result["faults"] for result in mine)
            print(f"{case.name:26} {right:4} of {len(mine):4} kills end equal, {mine[0]['of']} operations")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
