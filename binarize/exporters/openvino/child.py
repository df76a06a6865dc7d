"""OpenVINO in a process of its own: where its plugin crashes, that process ends and not the user's.

One child serves all exports of a process, since importing torch and OpenVINO takes seconds. Both sides pass the paths of
files that torch wrote, one a line: of a `Job` as plain values, then of what became of it.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from binarize.errors import UsageError

__all__ = ["FLOAT32", "Ran", "run_elsewhere", "serve"]

# Without the hint the plugin takes bfloat16 where the processor has it.
FLOAT32: Mapping[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
_SECONDS = 600
_CHILD = "import sys; from binarize.exporters.openvino.child import serve; serve()"
# The child that is running, if one is: all exports of this process share it.
_running: list[subprocess.Popen[str]] = []


@dataclass(frozen=True)
class Ran:
    """What a file gave for one batch, and what each layer that was asked for and is there read and gave."""

    outputs: list[Tensor]
    taps: dict[str, tuple[Tensor, Tensor]]
    # What the plugin computed in.
    precision: str


def run_elsewhere(
    path: Path,
    batches: Sequence[Sequence[Tensor]],
    *,
    layers: Sequence[str] = (),
    options: Mapping[str, Any] = FLOAT32,
) -> list[Ran]:
    """What OpenVINO makes of a file, batch by batch, with what the named layers read and gave.

    Raises: UsageError, where it refuses the file, or a signal ends the process that runs it.
    """
    with tempfile.TemporaryDirectory(prefix="binarize-openvino-") as folder:
        job, result = Path(folder) / "job", Path(folder) / "result"
        asked = {"path": str(path.absolute()), "batches": [list(batch) for batch in batches]}
        threads = torch.get_num_threads()
        torch.save({**asked, "layers": list(layers), "options": dict(options), "threads": threads}, job)
        said = _answer(f"{job}\t{result}")
        if said:
            raise UsageError(f"export openvino: {said}; nothing was written; try --format onnx")
        return [Ran(**one) for one in torch.load(result)]


def _answer(line: str) -> str:
    """The child's answer to one line: nothing where it did what was asked, else why not."""
    child = _child()
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # read below how it ended
    if not select.select([child.stdout], [], [], _SECONDS)[0]:
        _end()
        return f"OpenVINO did not answer within {_SECONDS} seconds"
    answer = child.stdout.readline()
    if answer:
        return answer.strip().removeprefix("done")
    code = child.wait()
    _running.clear()
    if code < 0:
        name = signal.Signals(-code).name
        return f"OpenVINO's CPU plugin crashed on this model (signal {-code}, {name})"
    return f"the process that runs OpenVINO ended with exit status {code}"


def _child() -> subprocess.Popen[str]:
    if _running and _running[0].poll() is None:
        return _running[0]
    _running.clear()
    home = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    _running.append(child)
    atexit.register(_end)
    return child


def _end() -> None:
    while _running:
        child = _running.pop()
        child.kill()
        child.communicate()


def serve() -> None:
    """The child's side: answers lines until its input ends."""
    from binarize.exporters.openvino.plugin import run

    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job, result = line.rstrip("\n").split("\t")
        try:
            torch.save(run(**torch.load(job)), result)
            said = "done"
        except Exception as error:  # the user's process has to hear of it, whatever it is
            said = " ".join(f"OpenVINO refuses the model: {error}".split())[:400]
        print(said, file=answers, flush=True)
