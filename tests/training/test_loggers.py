"""Loggers beside metrics.csv, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from binarize.errors import UsageError
from binarize.training import trainer
from binarize.training.finetune import finetune
from binarize.training.trainer import make_loggers


def test_csv_is_always_written_and_needs_no_logger(tmp_path: Path) -> None:
    assert make_loggers(("csv",), tmp_path) == []


def test_an_unknown_one_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'no logger "tensorbord".*did you mean "?tensorboard'):
        make_loggers(("tensorbord",), tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trainer.LOGGERS, "wandb", "no_such_package")
    with pytest.raises(UsageError, match="pip install no_such_package"):
        make_loggers(("wandb",), tmp_path)


def test_tensorboard_holds_the_numbers_of_every_epoch(
    converted: Callable[..., nn.Module], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe: dict[str, Any] = {"batch_size": 8, "epochs": 2, "augment": "none"}
    options: dict[str, Any] = {"recipe": recipe, "teacher": "none", "loggers": ("csv", "tensorboard")}
    finetune(converted("ConvRelu"), "fake:24", out=tmp_path / "net", **options)
    events = EventAccumulator(str(tmp_path / "net" / "tensorboard"))
    events.Reload()
    for name in ("loss", "val_top1", "flips"):
        assert [event.step for event in events.Scalars(name)] == [3, 6]
