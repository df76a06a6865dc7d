"""Messages speak as the caller does: options on the command line, arguments in Python; and each says all there is."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch
from small_images import pictures, run, small

import binarize
from binarize.checkpoint.load import read_report
from binarize.errors import UsageError, in_command, way
from binarize.report.units import percent


def test_a_way_out_is_in_the_words_of_the_caller(tmp_path: Path) -> None:
    assert way("--force", "force=True") == "force=True"
    with in_command():
        assert way("--force", "force=True") == "--force"
    assert way("--force", "force=True") == "force=True"
    model = binarize.convert(small(), input_shape=(1, 3, 8, 8))
    folder = binarize.save(model, tmp_path / "net")
    with pytest.raises(UsageError) as error:
        binarize.save(model, folder)
    assert "force=True" in str(error.value) and "--" not in str(error.value)
    assert run("pack", folder).exit_code == 0
    said = run("pack", folder)
    assert said.exit_code == 2 and "--force" in said.stderr and "force=True" not in said.stderr


def test_the_report_says_what_was_measured_on_which_images(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["ant", "bee", "cat", "dog"])
    folder = binarize.save(binarize.convert(small(), input_shape=(1, 3, 8, 8)), tmp_path / "net")
    said = run("calibrate", folder, "--data", images)
    assert "of the 48 images that it was fitted to" in " ".join(said.stdout.split())
    report = read_report(folder)
    assert report.agreement is not None and report.agreement.fitted
    assert "the 48 images it was fitted to" in str(report)
    assert "was calibrated on images of" in run("eval", folder, "--data", images).stderr
    words = ("--data", images, "--teacher", "none", "--val", "0.25", "-e", "1")
    said = run("finetune", folder, *words)
    assert said.exit_code == 0, said.stderr
    assert "36 images in batches of 128: 1 step an epoch; --batch-size 4 takes more" in said.stderr
    report = read_report(folder)
    assert report.agreement is None and report.training is not None
    assert "fitted to" not in str(report)
    shown = " ".join(str(report).split())
    assert f"on 12 images of {images}" in shown and "those before the training" in shown
    top1 = report.training.val_top1
    assert top1 is not None and f"the best by validation (top-1 {percent(top1)})" in said.stdout


def test_a_training_of_one_step_says_nothing_of_its_scheduler(caplog: pytest.LogCaptureFixture) -> None:
    from binarize.schemes.recipe import Recipe
    from binarize.training.loop.optimizers import make_rates

    optimizer = torch.optim.SGD(small().parameters(), lr=0.1)
    with caplog.at_level(logging.DEBUG):
        for schedule in ("cosine", "linear"):
            make_rates(optimizer, Recipe().changed({"schedule": schedule, "warmup": 0}), 1, 1)
    assert not caplog.records


def test_a_plan_is_printed_as_its_report() -> None:
    planned = binarize.plan(small(), example_input=torch.rand(4, 3, 8, 8))
    assert repr(planned) == "PlannedConversion(adabin on torch.nn.modules.container.Sequential)"
    assert str(planned) == str(planned.report) and "tensor(" not in str(planned)


def test_a_torchvision_of_another_torch_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    said = run("plan", "torchvision:resnet18")
    assert said.exit_code == 2 and "fault of binarize" not in said.stderr
    assert "does not fit torch" in said.stderr and "pip install --upgrade torch torchvision" in said.stderr


def test_names_of_parts_are_never_broken() -> None:
    lines = run("schemes").stdout.splitlines()
    (adabin,) = (line for line in lines if line.startswith("adabin "))
    assert (
        "adabin.AdaptiveWeight" in adabin and "adabin.AdaptiveInput" in adabin and "adabin.Maxout" in adabin
    )
