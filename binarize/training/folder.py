"""The folder of a training: what it holds while it runs, how it is found again, and how the trained model gets there.

    checkpoints/last.ckpt   the state of the training
    metrics.csv             one row an epoch
    finetune.json           what was trained with what, whether it is finished, and then what it came to
    unreadable.txt          images that could not be read, where there were any

The trained model is put beside them when it is finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from binarize import checkpoint
from binarize.atomic import whole_file
from binarize.conversion import conversion_of
from binarize.errors import SourceError, UsageError
from binarize.training.metrics import MetricsFile

__all__ = ["TrainingFolder", "is_main"]

# A folder that holds one of these is ours.
_OURS = ("binarize.json", "finetune.json")
# What tells a process its place among others: torchrun's, SLURM's, the trainer's own.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


class TrainingFolder:
    """A folder that a training writes to; only the main process does."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.metrics = self.path / "metrics.csv"
        self._record = self.path / "finetune.json"
        # What the training came to, once it has ended.
        self.result: dict[str, Any] | None = None

    def open(self, resume: bool, force: bool = False) -> dict[str, Any] | None:
        """What the checkpoint to resume from says of its training; None for a new training.

        Raises: UsageError where there is nothing to resume, or a training or other files would be lost.
        """
        if resume:
            record = self.record()
            if not record:
                raise UsageError(f"{self.path}: holds no training to resume (no {self._record.name})")
            if record.get("finished"):
                raise UsageError(
                    f"{self.path}: its training is finished; --force (force=True) begins a new one over it, "
                    "another folder (-o) keeps it"
                )
            # One that was killed before its first checkpoint begins anew, as it was meant to be.
            return self.stored() if self.checkpoint.is_file() else {"record": record, "stage": 1, "step": 0}
        if self.checkpoint.is_file() and not self.record().get("finished") and not force:
            raise UsageError(
                f"{self.path}: holds an unfinished training\n"
                "  --resume (resume=True) goes on with it, --force (force=True) begins anew"
            )
        if self.record().get("finished") and not force:
            raise UsageError(
                f"{self.path}: holds a finished training, which would be lost\n"
                "  another folder (-o, out=...) keeps it, --force (force=True) begins a new one over it"
            )
        foreign = self.path.exists() and not any((self.path / name).is_file() for name in _OURS)
        if foreign and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UsageError(f"{self.path} holds other files and is not written to; name another folder (-o)")
        return None

    def stored(self) -> dict[str, Any]:
        """What the checkpoint says of its training; nothing in it can run code. Raises SourceError where it is damaged."""
        try:
            data = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
            return {**data["binarize"], "step": data["global_step"]}
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise SourceError(
                f"{self.checkpoint}: damaged, or no checkpoint of a training: {error}"
            ) from error

    def record(self) -> dict[str, Any]:
        """finetune.json, empty where there is none."""
        if not self._record.is_file():
            return {}
        try:
            found = json.loads(self._record.read_text("utf-8"))
        except ValueError as error:
            raise SourceError(f"{self._record}: damaged: {error}") from error
        return found if isinstance(found, dict) else {}

    def begin(self, record: Mapping[str, Any], *, resumed: bool) -> None:
        """Make the folder ready for a training that begins, or goes on."""
        if not is_main():
            return
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if not resumed:
            self.checkpoint.unlink(missing_ok=True)
        self._write({**record, "finished": False})

    def rows(self, columns: Sequence[str], keep: int) -> MetricsFile | None:
        """metrics.csv with its first rows kept; None in other processes than the main one."""
        return MetricsFile(self.metrics, columns, keep=keep) if is_main() else None

    def finish(self, model: nn.Module, record: Mapping[str, Any]) -> None:
        """Put the trained model there, beside the files of its training, all of it or nothing."""
        if not is_main():
            return
        if conversion_of(model) is None:
            with whole_file(self.path / "model.safetensors") as draft:
                save_model(model, str(draft))
        else:
            checkpoint.replace_model(model, self.path)
        self._write({**record, "finished": True, "result": self.result})

    def _write(self, record: Mapping[str, Any]) -> None:
        with whole_file(self._record) as draft:
            draft.write_text(json.dumps(record, indent=1), "utf-8")
