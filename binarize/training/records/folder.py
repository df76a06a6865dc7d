"""The folder of a training: what it holds while it runs, how it is found again, and how the trained model gets there.

    checkpoints/last.ckpt   the state of the training
    metrics.csv             one row an epoch
    finetune.json           what was trained with what, whether it is finished, and then what it came to
    unreadable.txt          images that could not be read, where there were any

The trained model is put beside them when it is finished.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_model
from torch import nn

from binarize.checkpoint.save import replace_model
from binarize.conversion.conversion import conversion_of
from binarize.disk.atomic import whole_file, whole_folder
from binarize.disk.file_name import check_name, is_file
from binarize.disk.leftovers import is_empty, is_leftover
from binarize.disk.replacement import recover
from binarize.disk.seal import is_sealed
from binarize.errors import CheckError, SourceError, UsageError, way
from binarize.sources import load_pickle_safely
from binarize.training.records.metrics import MetricsFile
from binarize.training.records.stored_schema import check_stored, check_training

__all__ = ["TrainingFolder", "is_main"]

# A folder that holds one of these is ours.
_OURS = ("binarize.json", "finetune.json")
# What tells a process its place among others: torchrun's, SLURM's, the trainer's own.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def _ways() -> str:
    """What can be done about a training that has not ended."""
    return f"  {way('--resume', 'resume=True')} goes on with it, {way('--force', 'force=True')} begins anew"


class TrainingFolder:
    """A folder that a training writes to; only the main process does."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoints" / "last.ckpt"
        self.metrics = self.path / "metrics.csv"
        self._record = self.path / "finetune.json"
        # What the training came to, once it has ended.
        self.result: dict[str, Any] | None = None

    def open(self, resume: bool, force: bool = False, *, repeat: bool = False) -> dict[str, Any] | None:
        """What the checkpoint to resume from says of its training; None for a new training.

        With `repeat` an unfinished training is gone on with where it turns out to be the same: see `check_same`.

        Raises: UsageError where there is nothing to resume, or a training or other files would be lost; CheckError,
        where the checkpoint is damaged.
        """
        check_name(self.path)
        recover(self.path)
        if resume:
            record = self.record()
            if not record:
                raise UsageError(f"{self.path}: holds no training to resume (no {self._record.name})")
            if record.get("finished"):
                raise UsageError(
                    f"{self.path}: its training is finished; {way('--force', 'force=True')} begins a new one over it, "
                    f"another folder ({way('-o', 'out=...')}) keeps it"
                )
            # One that was killed before its first checkpoint begins anew, as it was meant to be.
            return self.stored() if self.checkpoint.is_file() else {"record": record, "stage": 1, "step": 0}
        if not force and self.checkpoint.is_file() and not self.record().get("finished"):
            if repeat:
                return self.stored()
            raise UsageError(f"{self.path}: holds an unfinished training\n{_ways()}")
        if not force and self.record().get("finished"):
            raise UsageError(
                f"{self.path}: holds a finished training, which would be lost\n"
                f"  another folder ({way('-o', 'out=...')}) keeps it, {way('--force', 'force=True')} begins a new one over it"
            )
        foreign = self.path.exists() and not any((self.path / name).is_file() for name in _OURS)
        if foreign and not self._is_unstarted():
            raise UsageError(
                f"{self.path} holds other files and is not written to; name another folder ({way('-o', 'out=...')})"
            )
        return None

    def _is_unstarted(self) -> bool:
        """Whether the folder holds no more than a training that was killed before it had begun."""
        kept = self.checkpoint.parent
        return self.path.is_dir() and all(
            is_leftover(path) or (path == kept and is_empty(kept)) for path in self.path.iterdir()
        )

    def check_same(self, record: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        """Raises: UsageError, where the training that a checkpoint is of is another than the one that is asked for."""
        before = stored["record"]
        # What older versions did not write down cannot be compared.
        for key in before.keys() & record.keys():
            if _told(before[key]) != _told(record[key]):
                name, was, now = _difference(key, before[key], record[key])
                raise UsageError(
                    f"{self.path}: holds an unfinished training with another {name}: {was}, not {now}\n{_ways()}"
                )

    def stored(self) -> dict[str, Any]:
        """What the checkpoint says of its training; nothing in it can run code.

        Raises: CheckError, where its digest is another; SourceError, where it is damaged.
        """
        try:
            sealed = is_sealed(self.checkpoint)
        except OSError as error:
            raise SourceError(f"{self.checkpoint}: cannot be read: {error.strerror}") from error
        data = load_pickle_safely(self.checkpoint, mmap=True)
        found = data.get("binarize") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(found, dict) or "global_step" not in data:
            raise SourceError(f"{self.checkpoint}: damaged, or no checkpoint of a training")
        stored = {**found, "step": data["global_step"], "sealed": sealed}
        check_stored(stored, str(self.checkpoint))
        return stored

    def record(self) -> dict[str, Any]:
        """finetune.json, empty where there is none."""
        if not is_file(self._record):
            return {}
        try:
            found = json.loads(self._record.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"{self._record}: damaged: {error}") from error
        digest = found.pop("sha256", None) if isinstance(found, dict) else None
        check_training(found, str(self._record))
        assert isinstance(found, dict)
        if digest not in (None, _digest(found)):
            raise CheckError(f"{self._record}: was changed after it was written (sha256 differs)")
        return found

    def begin(self, record: Mapping[str, Any], *, resumed: bool) -> None:
        """Make the folder ready for a training that begins, or goes on."""
        if not is_main():
            return
        if not self.path.exists():
            # A folder that says what it is for, or none.
            with whole_folder(self.path) as draft:
                (draft / self._record.name).write_text(_text({**record, "finished": False}), "utf-8")
        else:
            if not resumed:
                self.checkpoint.unlink(missing_ok=True)
            with whole_file(self._record) as draft:
                draft.write_text(_text({**record, "finished": False}), "utf-8")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def rows(self, columns: Sequence[str], keep: int) -> MetricsFile | None:
        """metrics.csv with its first rows kept; None in other processes than the main one."""
        return MetricsFile(self.metrics, columns, keep=keep) if is_main() else None

    def finish(self, model: nn.Module, record: Mapping[str, Any]) -> None:
        """Put the trained model there, beside the files of its training, all of it or nothing."""
        if not is_main():
            return
        text = _text({**record, "finished": True, "result": self.result})
        if conversion_of(model) is not None:
            # In one step: a training is finished where its model is, and nowhere else.
            replace_model(model, self.path, beside={self._record.name: text})
            return
        with whole_file(self.path / "model.safetensors") as draft:
            save_model(model, str(draft))
        with whole_file(self._record) as draft:
            draft.write_text(text, "utf-8")


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps({**record, "sha256": _digest(record)}, indent=1)


def _digest(record: Mapping[str, Any]) -> str:
    # As it will be read again: tuples are lists, keys are texts.
    again = json.loads(json.dumps(record))
    return hashlib.sha256(json.dumps(again, sort_keys=True).encode()).hexdigest()


def _difference(key: str, before: object, now: object) -> tuple[str, Any, Any]:
    """(what differs, what it was, what it is); of settings under one key the first that does."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                return name, before.get(name), now.get(name)
    return ("model", "the one it began with", "this one") if key == "start" else (key, before, now)


def _told(value: object) -> Any:
    """A value of the record without what is there for people alone."""
    return {**value, "origin": None} if isinstance(value, dict) else value
