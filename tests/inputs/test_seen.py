"""What a folder remembers of its images, and that it is used again without being said again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_images import pictures, run, small

import binarize
from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError
from binarize.inputs.seen import DataUse, Preprocessing, Seen
from binarize.training.data import preprocessing_of

DATA = Path(__file__).parents[1] / "data"
SHOWN = Preprocessing((3, 8, 8), (0.1, 0.2, 0.3), (0.5, 0.5, 0.25), 0.9, "bicubic", "mean and std as given")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return binarize.save(binarize.convert(small(), input_shape=(1, 3, 8, 8)), tmp_path / "net")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of each of four classes, below a folder with a space in its name."""
    return pictures(tmp_path / "my images", ["ant", "bee", "cat", "dog"])


def test_all_that_is_seen_comes_back_from_json() -> None:
    seen = Seen(SHOWN, "finetune", ("cat", "dog"), (DataUse("calibrate", "a b", 7, labelled=False),))
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    assert Seen.from_json(Seen().to_json()) == Seen()


def test_the_last_use_of_a_command_is_kept_after_all_others() -> None:
    first, other, last = (
        DataUse("calibrate", "a", 1),
        DataUse("finetune", "b", 2),
        DataUse("calibrate", "c", 3),
    )
    assert Seen().using(first).using(other).using(last).data == (other, last)


def test_a_guess_stays_a_guess_when_it_is_remembered() -> None:
    shown = preprocessing_of(binarize.convert(small(), input_shape=(1, 3, 8, 8)))
    assert shown.origin == "a guess: pixels to [-1, 1], since the model says nothing else"
    back = Seen().showing(shown, "calibrate").remembered()
    assert back is not None and back.origin == f"remembered from calibrate, where it was {shown.origin}"
    given = Seen().showing(SHOWN, "finetune").remembered()
    assert given == SHOWN and given.origin == "remembered from finetune"


@pytest.mark.parametrize("mean", [(float("nan"),), (float("inf"),) * 3, (0.1, 0.2)])
def test_numbers_that_are_no_mean_are_refused(mean: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="mean"):
        preprocessing_of(binarize.convert(small(), input_shape=(1, 3, 8, 8)), mean=mean)


def test_a_folder_of_format_3_loads_bit_equal() -> None:
    expected = load_file(DATA / "format-3" / "expected.safetensors")
    assert json.loads((DATA / "format-3" / "binarize.json").read_text())["format"] == 3
    model = binarize.load(DATA / "format-3").eval()
    packed = binarize.load_packed(DATA / "format-3").eval()
    with torch.no_grad():
        assert torch.equal(model(expected["input"]), expected["output"])
        assert torch.equal(packed(expected["input"]), expected["packed"])
    conversion = conversion_of(model)
    assert conversion is not None and conversion.seen == Seen()


def test_mean_and_std_are_given_once(folder: Path, images: Path) -> None:
    said = run("calibrate", folder, "--data", images, "--mean", "0.1,0.2,0.3", "--std", "0.5")
    assert said.exit_code == 0, said.stderr
    assert "images   3x8x8, mean 0.1,0.2,0.3, std 0.5,0.5,0.5: mean and std as given" in said.stdout
    said = run("eval", folder, "--data", images)
    assert "mean 0.1,0.2,0.3, std 0.5,0.5,0.5: remembered from calibrate" in said.stdout
    said = run("finetune", folder, "--data", images, "--epochs", "1", "--mean", "0.3", "--teacher", "none")
    assert said.exit_code == 0, said.stderr
    assert "mean 0.3,0.3,0.3, std 0.5,0.5,0.5: mean as given; std remembered from calibrate" in said.stdout
    assert "other than remembered from calibrate: there it was mean 0.1,0.2,0.3" in said.stderr
    said = run("eval", folder, "--data", images)
    assert "mean 0.3,0.3,0.3, std 0.5,0.5,0.5: remembered from finetune" in said.stdout
    assert "other than" not in said.stderr
    conversion = conversion_of(binarize.load(folder))
    assert conversion is not None
    assert conversion.seen.classes == ("ant", "bee", "cat", "dog")
    uses = [(use.by, use.name, use.images, use.by_name) for use in conversion.seen.data]
    assert uses == [("calibrate", str(images), 48, True), ("finetune", str(images), 48, True)]


def test_what_convert_was_told_is_remembered(tmp_path: Path, images: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential("
        "nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))\n"
    )
    spec, out = f"{tmp_path / 'net.py'}:build", tmp_path / "out"
    said = run("convert", spec, "-i", "1,3,8,8", "--mean", "0.2", "--std", "0.4", "-o", out)
    assert said.exit_code == 0, said.stderr
    said = run("calibrate", out, "--data", images, "--float", spec)
    assert "mean 0.2,0.2,0.2, std 0.4,0.4,0.4: remembered from convert" in said.stdout


def test_a_flat_folder_calibrates_and_compares_but_does_not_train(folder: Path, images: Path) -> None:
    flat = images / "bee"
    said = run("calibrate", folder, "--data", flat)
    assert said.exit_code == 0, said.stderr
    assert f"eval {folder} --data '{flat}'" in said.stderr
    said = run("eval", folder, "--data", flat)
    assert said.exit_code == 2 and "no labels, and there is no float model" in said.stderr
    torch.save(small(), folder.parent / "float.pt")
    said = run("eval", folder, "--data", flat, "--float", folder.parent / "float.pt")
    assert said.exit_code == 0, said.stderr
    assert "says the same as the float model" in said.stdout and "top-1" not in said.stdout
    said = run("finetune", folder, "--data", flat, "--teacher", "none")
    assert said.exit_code == 2 and "its 12 images have no labels" in said.stderr


def test_a_float_model_is_called_one_and_shown_its_size(tmp_path: Path, images: Path) -> None:
    torch.save(small(), tmp_path / "float.pt")
    said = run("eval", tmp_path / "float.pt", "--data", images, "-i", "1,3,8,8")
    assert said.exit_code == 0, said.stderr
    assert "is a float model" in said.stderr
    assert "images   3x8x8" in said.stdout and "float" in said.stdout and "binary" not in said.stdout
    assert run("eval", tmp_path / "float.pt", "--data", images, "-i", "1,16").exit_code == 2


def test_a_folder_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    few = pictures(tmp_path / "few", ["x", "y"])
    for words in (("eval", folder), ("finetune", folder, "--teacher", "none")):
        said = run(*words, "--data", few)
        assert said.exit_code == 2 and "2 class folders (x, y) for a model of 4 outputs" in said.stderr
    assert run("calibrate", folder, "--data", few).exit_code == 0
