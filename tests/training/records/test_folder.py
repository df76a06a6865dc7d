"""What a checkpoint says of its training is believed only where it is what a training writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from binarize.disk.seal import save_sealed
from binarize.errors import SourceError, UntrustedSourceError
from binarize.training.records.folder import TrainingFolder
from binarize.training.trainer import SealedCheckpoints

WHOLE = {"global_step": 3, "binarize": {"stage": 1, "record": {}}}


def written(content: Any, folder: Path) -> TrainingFolder:
    found = TrainingFolder(folder)
    found.checkpoint.parent.mkdir()
    save_sealed(content, found.checkpoint)
    return found


@pytest.mark.parametrize(
    "content",
    [
        [WHOLE],
        {**WHOLE, "global_step": "3"},
        {**WHOLE, "global_step": -1},
        {**WHOLE, "binarize": None},
        {**WHOLE, "binarize": {"stage": 1, "record": [1]}},
        {**WHOLE, "binarize": {"stage": torch.ones(2), "record": {}}},
        {**WHOLE, "binarize": {"stage": 0, "record": {}}},
    ],
)
def test_what_no_training_writes_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"last\.ckpt: "):
        written(content, tmp_path).stored()


def test_the_trainer_reads_without_the_unpickler_of_torch(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    vars(net)["train"] = nn.functional.relu
    checkpoint = written({**WHOLE, "state_dict": net}, tmp_path).checkpoint
    with pytest.raises(UntrustedSourceError, match="a Linear in it has its own 'train'"):
        SealedCheckpoints().load_checkpoint(checkpoint)


def test_force_begins_anew_over_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "finetune.json").write_text("{")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("x")
    folder = TrainingFolder(tmp_path)
    assert folder.open(resume=False, force=True) is None
    with pytest.raises(SourceError, match="damaged"):
        folder.open(resume=False)
