"""`binarize finetune` and `binarize eval`, from a converted folder to numbers beside each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import binarize
from binarize.cli import app
from binarize.demo.digits import load_digits, trained_vgg
from binarize.training.records.metrics import read_metrics


def run(*words: str | Path) -> Result:
    """One command in this process; stdout and stderr apart."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small VGG converted from a file that is still there, to teach."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    save_file(trained_vgg().state_dict(), tmp_path / "vgg.safetensors")
    arch = "binarize.demo.digits:DigitsVGG"
    images = load_digits().train_images[:64]
    model = binarize.convert(str(tmp_path / "vgg.safetensors"), "bireal", arch=arch, example_input=images)
    return binarize.save(model, tmp_path / "net")


def test_finetune_then_eval(folder: Path) -> None:
    words = ("--data", "digits", "--epochs", "1", "--limit", "256", "--batch-size", "64")
    result = run("finetune", folder, *words, "--set", "warmup=0", "--plain")
    assert result.exit_code == 0, result.stderr
    for text in (
        "256 images of 10 classes, 359 to validate",
        "teacher  source",
        "1 epochs",
        "epoch   1",
        "flips",
    ):
        assert text in result.stdout
    (row,) = read_metrics(folder / "metrics.csv")
    assert (row["step"], row["epoch"]) == (4, 1)
    assert "the weights are those of epoch 1, the best by validation" in result.stdout
    report = run("report", folder, "--plain").stdout
    assert "1 epoch on 256 images of digits, teacher source" in " ".join(report.split())

    result = run("eval", folder, "--data", "digits", "-o", folder.parent / "digits.md", "--plain")
    assert result.exit_code == 0, result.stderr
    for text in (
        "359 images of digits",
        "top-1",
        "says the same as the float model",
        "correlation with float",
        "OPs",
        "confused most often",
    ):
        assert text in result.stdout
    assert "## Classes" in (folder.parent / "digits.md").read_text()

    result = run("eval", folder, "--data", "digits", "--json", "--float", "none")
    found = json.loads(result.stdout)
    assert found["images"] == 359 and found["reference"] is None and found["split"] == "validation"
    assert "was trained on" not in result.stderr
    seen = run("eval", folder, "--data", "digits", "--split", "train", "--limit", "64", "--plain")
    assert "was trained on images of digits" in " ".join((seen.stdout + seen.stderr).split())
    assert found["model"]["top1"] == pytest.approx(row["val_top1"], abs=1e-4)


@pytest.mark.parametrize("teachers", [(), ("none",), ("DIR", "source")], ids=["usual", "none", "two"])
@pytest.mark.sampled(2)
def test_an_interrupted_training_is_resumed_without_saying_it_all_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, teachers: tuple[str, ...]
) -> None:
    import os
    import signal

    from binarize.training.loop.task import FineTuning

    words = ("--data", "digits", "--limit", "128", "--batch-size", "64", "--epochs", "2", "--plain")
    if "DIR" in teachers:
        shutil.copytree(folder, folder.parent / "other")
    for teacher in teachers:
        words += ("--teacher", str(folder.parent / "other") if teacher == "DIR" else teacher)
    result = run("finetune", folder, *words, "-o", folder.parent / "whole")
    assert result.exit_code == 0, result.stderr
    step = FineTuning.training_step

    def interrupted(self: FineTuning, batch: object, batch_idx: int) -> object:
        if self.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(FineTuning, "training_step", interrupted)
    result = run("finetune", folder, *words)
    assert result.exit_code == 130
    assert f"finetune {folder} --resume" in result.stderr
    monkeypatch.undo()
    others = run("finetune", folder, *words, "--seed", "7")
    assert others.exit_code == 2
    assert "holds an unfinished training with another seed: 0, not 7" in others.stderr
    # The same words go on as well.
    again = words if teachers else ("--resume", "--plain")
    result = run("finetune", folder, *again)
    assert result.exit_code == 0, result.stderr
    found, wanted = binarize.load(folder), binarize.load(folder.parent / "whole")
    for name, value in wanted.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what to train on: --data DATA"),
        (("--data", "digits", "--set", "lr"), "expected key=VALUE"),
        (("--data", "digits", "--set", "epoch=3"), "unknown key 'epoch'; did you mean \"epochs\"?"),
        (("--data", "nowhere"), "data nowhere: no such folder"),
        (("--data", "digits", "--precision", "8"), 'precision "8" is none of 32, bf16, 16'),
        (("--data", "digits", "--log", "csv,wandd"), 'no logger "wandd"'),
        (("--data", "digits", "--resume"), "holds no training to resume"),
        (("--data", "digits", "--mean", "a"), '--mean "a": expected numbers'),
    ],
)
def test_mistakes_are_answered_before_anything_is_written(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    result = run("finetune", folder, *words)
    assert result.exit_code in (2, 3)
    assert message in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_eval_takes_any_model_and_says_why_there_is_no_float_one(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pt"
    torch.save(trained_vgg(), path)
    result = run("eval", path, "--data", "digits", "--plain")
    assert result.exit_code == 0, result.stderr
    assert "top-1" in result.stdout and "correlation" not in result.stdout
    model = trained_vgg()
    folder = binarize.save(binarize.convert(model, "bireal"), tmp_path / "net")
    result = run("eval", folder, "--data", "digits", "--limit", "32")
    assert result.exit_code == 0, result.stderr
    assert (
        "without the float model: the float model" in result.stderr and "--float names one" in result.stderr
    )
    result = run("eval", folder, "--data", "digits", "--limit", "32", "--float", path)
    assert "says the same as the float model" in result.stdout
    assert run("eval", folder, "--data", "digits", "-o", "x.txt").exit_code == 2
