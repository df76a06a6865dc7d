"""`binarize calibrate` and `binarize convert --calibrate`, on folders."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import forked
from typer.testing import CliRunner

import binarize
from binarize.calibration import progress
from binarize.cli import app
from binarize.demo.digits import load_digits, trained_vgg

RUN = CliRunner()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """file.py:make of the bundled digits network."""
    file = tmp_path_factory.mktemp("net") / "digits_net.py"
    file.write_text("from binarize.demo.digits import trained_vgg as make\n")
    return f"{file}:make"


def invoke(*words: str) -> tuple[int, str, str]:
    result = RUN.invoke(app, [*words, "--plain"])
    return result.exit_code, result.stdout, result.stderr


def converted(network: str, folder: Path, *words: str) -> None:
    code, _, error = invoke(
        "convert", network, "-i", "1,1,8,8", "-s", "reactnet", "-o", str(folder), "--report", "json", *words
    )
    assert code == 0, error


def accuracy(folder: Path) -> float:
    digits = load_digits()
    model = binarize.load(folder, model=trained_vgg()).eval()
    with torch.no_grad():
        return float((model(digits.held_out_images).argmax(1) == digits.held_out_labels).float().mean())


def test_what_was_set_is_said_in_words(network: str, tmp_path: Path) -> None:
    converted(network, tmp_path / "net")
    code, out, error = invoke(
        "calibrate", str(tmp_path / "net"), "--data", "digits", "--limit", "64", "--no-signs"
    )
    assert code == 0, error
    told = " ".join(out.split())
    assert (
        "set thresholds, BatchNorm statistics and scales and shifts by least squares from 64 images of digits"
        in told
    )
    assert "Calibration(" not in told


def test_a_folder_is_calibrated_in_place(network: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    converted(network, folder)
    (folder / "notes.txt").write_text("mine")
    before = accuracy(folder)
    code, out, error = invoke("calibrate", str(folder), "--data", "digits", "--limit", "300", "--json")
    assert code == 0, error
    document = json.loads(out)
    assert document["calibration"]["images"] == 300
    assert document["calibration"]["reference"] == "the weights as converted"
    assert accuracy(folder) > before + 0.3
    report = json.loads((folder / "report.json").read_text())
    thresholds = {row["threshold"] for row in report["rows"] if row["action"] == "binarize"}
    assert thresholds == {"per channel, mean and best split of 300 images of digits"}
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_packed_file_is_said_to_be_of_the_model_before(network: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    converted(network, folder)
    assert invoke("pack", str(folder))[0] == 0
    code, _, error = invoke("calibrate", str(folder), "--data", "digits", "--limit", "20", "--no-signs")
    assert code == 0 and "is of the model before" in error and "--force" in error
    fresh = binarize.freeze(binarize.load(folder, model=trained_vgg()))
    images = load_digits().held_out_images[:8]
    with torch.no_grad():
        assert torch.equal(
            binarize.load_packed(folder, model=trained_vgg()).eval()(images), fresh.eval()(images)
        )


def test_converting_with_calibrate_is_both_in_one(network: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    converted(network, one)
    assert invoke("calibrate", str(one), "--data", "digits", "--limit", "100")[0] == 0
    converted(network, two, "--calibrate", "digits", "--limit", "100")
    first, second = (binarize.load(folder) for folder in (one, two))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_killed_calibration_leaves_the_folder_as_it_was(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "net"
    converted(network, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def killed(bar: object) -> Callable[[str, int, int], None]:
        def tick(name: str, done: int, of: int) -> None:
            if name == "all layers":
                os.kill(os.getpid(), signal.SIGKILL)

        return tick

    # However fast the machine is: what was done is written after each layer.
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr("binarize.commands.calibrate.progress", killed)
    child = forked(
        lambda: invoke("calibrate", str(folder), "--data", "digits", "--limit", "100", "--steps", "3")
    )
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # Beside it is only who was at work and what was done, for the next command to take over.
    assert {path.name for path in tmp_path.iterdir()} == {"net", ".net.writing", ".net.calibration"}


def test_an_interrupted_calibration_goes_on_when_the_same_command_is_given_again(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    words = ("--data", "digits", "--limit", "100", "--steps", "3")
    whole, folder = tmp_path / "whole", tmp_path / "net"
    for target in (whole, folder):
        converted(network, target)
    assert invoke("calibrate", str(whole), *words)[0] == 0

    def interrupted(bar: object) -> Callable[[str, int, int], None]:
        def tick(name: str, done: int, of: int) -> None:
            if name == "all layers":
                raise KeyboardInterrupt

        return tick

    before = (folder / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("binarize.commands.calibrate.progress", interrupted)
        code, _, error = invoke("calibrate", str(folder), *words)
        assert code == 130 and "the same command goes on from there" in " ".join(error.split())
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".net.calibration", "net", "whole"]
    code, _, error = invoke("calibrate", str(folder), *words)
    assert code == 0 and "the same one goes on from there" in " ".join(error.split())
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "whole"]


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--data", "no/such"], 2, "no such folder"),
        (["--data", "digits", "--fit", "mean"], 2, 'fit="mean" is none of'),
        (["--data", "digits", "--float", "no/model.pt"], 4, "no/model.pt"),
        (["--data", "digits", "-o", "{folder}"], 2, "exists already"),
    ],
)
def test_mistakes_change_nothing(
    network: str, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    folder = tmp_path / "net"
    converted(network, folder)
    before = (folder / "model.safetensors").read_bytes()
    found, _, error = invoke("calibrate", str(folder), *(word.format(folder=folder) for word in words))
    assert found == code and message in error, error
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_trained_folder_is_not_calibrated_by_mistake(network: str, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    converted(network, folder)
    record = {"data": "digits", "images": 8, "classes": [], "validation": None, "preprocessing": None}
    record |= {"teacher": "none", "seed": 0, "recipe": {}, "options": {}, "finished": True}
    (folder / "finetune.json").write_text(json.dumps(record))
    code, _, error = invoke("calibrate", str(folder), "--data", "digits")
    assert code == 2 and "was trained" in error and "--force" in error


def test_options_of_the_calibration_need_it(network: str, tmp_path: Path) -> None:
    code, _, error = invoke("convert", network, "-i", "1,1,8,8", "-o", str(tmp_path / "x"), "--steps", "5")
    assert code == 2 and "belong to --calibrate DATA" in error
    assert not (tmp_path / "x").exists()


def test_unreadable_images_are_counted(network: str, tmp_path: Path) -> None:
    from PIL import Image

    folder, images = tmp_path / "net", tmp_path / "images"
    converted(network, folder)
    for name in ("a", "b"):
        (images / name).mkdir(parents=True)
        for i in range(12):
            Image.linear_gradient("L").rotate(30 * i).save(images / name / f"{i}.png")
    (images / "a" / "3.png").write_bytes(b"no image")
    code, out, error = invoke("calibrate", str(folder), "--data", str(images), "--json")
    assert code == 0, error
    assert json.loads(out)["calibration"]["images"] == 23
    assert "1 images could not be read, the first: " in error and "3.png" in error
