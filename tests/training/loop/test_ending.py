"""With which weights a training ends, and what is remembered of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import binarize
from binarize.checkpoint.load import read_report
from binarize.training.data import Batch
from binarize.training.finetune import finetune
from binarize.training.loop.ending import Average, Best, take_norms_anew
from binarize.training.records.metrics import read_metrics

Converted = Callable[..., nn.Module]
RECIPE = {"batch_size": 8, "epochs": 4, "augment": "shift1", "lr": 1e-2}


def trained(model: nn.Module, **options: Any) -> nn.Module:
    recipe = {**RECIPE, **options.pop("recipe", {})}
    return finetune(model, "fake:24", recipe=recipe, teacher="none", **options)


def test_the_average_of_two_steps_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.75)
    for step, weight in ((1, 2.0), (2, 6.0), (3, 0.0)):
        nn.init.constant_(model.weight, weight)
        average.update(model, step)
    # The first step is taken as it is; then the decay is the least of 0.75 and 1 - (1 + n)^(-2/3): 0.370, 0.519.
    second = 0.37004 * 2 + 0.62996 * 6
    assert average.model.weight.item() == pytest.approx(0.51925 * second, abs=1e-3)  # type: ignore[union-attr]
    assert not average.model.training


def test_the_best_epoch_has_the_highest_top1_and_of_equal_ones_the_last() -> None:
    model, best = nn.Linear(1, 1, bias=False), Best()
    for epoch, top1 in enumerate((0.5, 0.75, 0.75, 0.25), 1):
        nn.init.constant_(model.weight, epoch)
        best.look(model, epoch, {"val_top1": top1, "val_loss": 1.0})
    assert (best.epoch, best.tensors["weight"].item()) == (3, 3.0)
    copied = Best()
    copied.load_state_dict(best.state_dict())
    copied.look(model, 5, {"val_top1": 0.7})
    assert copied.epoch == 3


def test_without_classes_the_best_epoch_has_the_lowest_loss() -> None:
    model, best = nn.Linear(1, 1), Best()
    for epoch, loss in enumerate((0.5, 0.25, 0.75), 1):
        best.look(model, epoch, {"val_loss": loss})
    assert best.epoch == 2
    best.look(model, 4, {})
    assert best.epoch == 2


def test_norms_taken_anew_are_the_mean_over_the_batches() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1)).train()
    model[1].running_mean.fill_(9.0)  # type: ignore[union-attr, operator]
    batches = [Batch(torch.tensor([[0.0], [2.0]])), Batch(torch.tensor([[4.0], [8.0]]))]
    assert take_norms_anew(model, batches) == 4
    # Means 1 and 6; variances (n - 1) 2 and 8. Dropout does nothing meanwhile.
    assert model[1].running_mean.item() == 3.5  # type: ignore[union-attr, operator]
    assert model[1].running_var.item() == 5.0  # type: ignore[union-attr, operator]
    assert model.training and model[0].training and model[1].momentum == 0.1


def test_the_model_ends_with_the_weights_of_the_best_epoch(converted: Converted, tmp_path: Path) -> None:
    out = tmp_path / "net"
    model = trained(converted("ConvRelu"), out=out, recipe={"lr": 0.1})
    rows = read_metrics(out / "metrics.csv")
    top = max(row["val_top1"] for row in rows)  # type: ignore[type-var]
    last = max(row["epoch"] for row in rows if row["val_top1"] == top)  # type: ignore[type-var]
    report = read_report(out)
    assert report.training is not None
    assert (report.training.epoch, report.training.chosen) == (last, "validation")
    assert report.training.val_top1 == top
    found = binarize.evaluate(model, "fake:24", correlation=False)
    assert found.top1 == pytest.approx(top, abs=1e-6)
    record = json.loads((out / "finetune.json").read_text("utf-8"))
    assert record["finished"] and record["result"]["epoch"] == last
    assert "the best by validation" in (out / "report.md").read_text("utf-8")
    assert "near chance" not in str(report)


def test_the_last_epoch_can_be_asked_for(converted: Converted) -> None:
    model = trained(converted("ConvRelu"), recipe={"keep_epoch": "last", "epochs": 2})
    training = model.report.training  # type: ignore[union-attr]
    assert (training.epoch, training.epochs, training.chosen) == (2, 2, "last")  # type: ignore[union-attr]


def test_without_validation_the_last_epoch_stays(converted: Converted) -> None:
    training = trained(converted("ConvRelu"), validation=False, recipe={"epochs": 2}).report.training  # type: ignore[union-attr]
    assert (training.epoch, training.chosen, training.val_top1) == (2, "last", None)  # type: ignore[union-attr]


def test_the_average_is_what_validation_sees_and_the_model_ends_with(
    converted: Converted, tmp_path: Path
) -> None:
    plain, averaged = converted("ConvRelu"), converted("ConvRelu")
    trained(plain, recipe={"keep_epoch": "last"})
    trained(averaged, out=tmp_path / "net", recipe={"ema": 0.9, "keep_epoch": "last"})
    # The average lags behind; what it averages is the same training.
    assert not torch.equal(
        plain.state_dict()["classifier.6.weight"], averaged.state_dict()["classifier.6.weight"]
    )
    last = read_metrics(tmp_path / "net" / "metrics.csv")[-1]
    assert binarize.evaluate(averaged, "fake:24").top1 == pytest.approx(last["val_top1"], abs=1e-6)


def test_norms_are_taken_anew_at_the_end(converted: Converted) -> None:
    kept, anew = converted("ConvRelu"), converted("ConvRelu")
    trained(kept, recipe={"keep_epoch": "last"})
    trained(anew, recipe={"keep_epoch": "last", "norm_images": 16})
    assert anew.report.training.norm_images == 16  # type: ignore[union-attr]
    for (name, before), after in zip(kept.state_dict().items(), anew.state_dict().values()):
        changed = not torch.equal(before, after)
        assert changed == ("running_" in name or "num_batches" in name), name
