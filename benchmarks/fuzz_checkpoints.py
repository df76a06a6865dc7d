"""Changed checkpoints of a training, of a calibration, and results of a study, sealed anew or not, read as who goes on does.

Of a training what is read before the model is: what a checkpoint says of its training. That its weights fit is found out
by the trainer, whose errors before the first step are told as ours.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from fuzz_mutations import mutated_bytes, mutated_tree
from fuzz_trainings import RECORD

from binarize.calibration.progress import Progress
from binarize.disk.seal import save_sealed
from binarize.studies.results import Results
from binarize.training.records.folder import TrainingFolder

__all__ = ["cases", "read"]

_RESULT: dict[str, Any] = {
    "id": "0123456789ab", "name": "a/seed0", "group": "a", "labels": {"train": "binary"}, "kind": "binary", "seed": 0,
    "settings": {"epochs": 5}, "float": None, "state": "finished", "reason": "", "top1": 0.5, "top5": 0.9, "loss": 1.0,
    "classes": [0.5], "val_top1": 0.5, "val_loss": 1.0, "seconds": [1.0, 2.0], "minutes": 0.05, "memory": 1 << 20,
    "device_memory": None, "costs": {"flops": 3, "ops": 1.5, "packed_bytes": 2048}, "curve": [1.0, 0.5],
}  # fmt: skip


@cache
def _good() -> dict[str, Any]:
    """What each kind of file holds when nobody has changed it."""
    state, generator = torch.ones(4), torch.Generator().get_state()
    layer = {"parameters": [state], "generator": generator, "errors": [1.0, 0.5]}
    joint = {"model": {"w": state}, "optimizer": {}, "losses": [1.0], "generator": generator}
    training = {"record": RECORD, "stage": 1}
    return {
        "training": {"binarize": training, "global_step": 3, "state_dict": {"w": state}, "loops": {}},
        "calibration": {"format": 1, "key": "key", "layers": {"a": layer}, "joint": joint},
        "study": _RESULT,
    }


def _sealed(content: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sealed"
        save_sealed(content, path)
        return path.read_bytes()


def _unsealed(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def cases(seed: int) -> Iterator[tuple[str, bytes]]:
    """(kind and what was changed, content of a file behind a line with its kind), without end."""
    draw = random.Random(seed)
    while True:
        kind = draw.choice(list(_good()))
        writer: Callable[[Any], bytes] = draw.choice((_sealed, _sealed, _unsealed))
        if kind == "study":
            writer = _line
        how = writer.__name__.strip("_")
        if draw.random() < 0.2:
            what, raw = mutated_bytes(writer(_good()[kind]), draw)
        else:
            what, changed = mutated_tree(copy.deepcopy(_good()[kind]), draw)
            try:
                raw = writer(changed)
            except RecursionError:
                continue  # nested deeper than any program of ours could have written
        yield f"{kind} {how} {what}", kind.encode() + b"\n" + raw


def _line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def read(path: Path) -> None:
    """Read the file as what its first line says."""
    with path.open("rb") as file, tempfile.TemporaryDirectory() as place:
        kind = file.readline().strip().decode()
        target = Path(place) / ("checkpoints/last.ckpt" if kind == "training" else "kept")
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as copied:
            shutil.copyfileobj(file, copied)
        if kind == "training":
            TrainingFolder(place).stored()
        elif kind == "calibration":
            Progress(target, "key")
        else:
            Results(target).read()
