"""A name that no file can have is refused in words at every door, and a long one of something else is understood."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import run
from torch import nn

import binarize
from binarize.commands.convert import model_name
from binarize.commands.report import read_report
from binarize.disk.file_name import as_text, is_file, is_folder, is_there, why_no_name
from binarize.errors import BinarizeError
from binarize.rules.load import load_rule_set
from binarize.sources import load as load_source
from binarize.studies.grid.expand import trials_of
from binarize.studies.grid.files import Files
from binarize.studies.grid.read import read_grid
from binarize.training.records.folder import TrainingFolder

ODD = ("x" * 300, "x/" * 3000 + "x", "x" * 300 + ".yaml", "a\0b", "a\0.py", "\ud800")


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 4)
    )


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return binarize.convert(net(), "bireal", example_input=torch.randn(2, 3, 4, 4), calibrate=False)


@pytest.mark.parametrize("name", ODD)
def test_nothing_lies_under_a_name_that_no_file_can_have(name: str) -> None:
    assert why_no_name(name) and not (is_file(name) or is_folder(name) or is_there(Path(name)))


def test_a_name_that_is_free_is_a_name(tmp_path: Path) -> None:
    assert why_no_name(tmp_path / "new" / "x") is None
    assert is_there(tmp_path) and is_folder(tmp_path) and not is_file(tmp_path)


def _read_grid(key: str, name: str) -> Any:
    settings = {
        "model": "torchvision:resnet18",
        "data": "digits",
        "input_shape": [1, 8, 8],
        "epochs": 1,
        key: name,
    }
    return trials_of(
        read_grid({"schema": 1, "name": "odd", "settings": settings, "axes": {"train": ["distilled"]}})
    )


DOORS: dict[str, Callable[[Any, str], Any]] = {
    "load": lambda _, name: binarize.load(name),
    "load_packed": lambda _, name: binarize.load_packed(name),
    "load a source": lambda _, name: load_source(name),
    "local-dir": lambda _, name: load_source(f"local-dir:{name}"),
    "user code": lambda _, name: load_source(f"{name}.py:make"),
    "rules": lambda _, name: load_rule_set(rules=name),
    "report": lambda _, name: read_report(Path(name)),
    "save": binarize.save,
    "pack": lambda _, name: binarize.pack(name),
    "export a folder": lambda _, name: binarize.export(name, "c"),
    "export to": lambda model, name: binarize.export(model, "c", name),
    "data": binarize.evaluate,
    "idx": lambda model, name: binarize.evaluate(model, f"idx:{name}"),
    "teacher": lambda model, name: binarize.finetune(model, "fake:8", teacher=name, epochs=1),
    "train into": lambda model, name: binarize.finetune(model, "fake:8", teacher="none", epochs=1, out=name),
    "grid's scheme": lambda _, name: _read_grid("scheme", name),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_it_in_words(
    model: nn.Module, door: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BinarizeError):
        DOORS[door](model, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["model", "arch", "data", "teacher"])
@pytest.mark.parametrize("name", ODD)
def test_a_trial_may_name_it_and_fails_by_itself(key: str, name: str) -> None:
    *_, trial = _read_grid(key, name)
    files = Files(Path())
    assert files.digests(trial.settings) == {} and files.places(trial.settings)[key] in (name, [name])


def test_a_training_folder_of_no_name_holds_nothing() -> None:
    assert TrainingFolder("x" * 300).record() == {}


def test_a_call_may_be_longer_than_a_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\n"
        "def make(*, widths):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 4))\n"
    )
    spec = f"nets.py:make(widths={[1000] * 60})"
    assert len(spec) > 255 and model_name(spec) == "make"
    assert run("plan", spec, "-s", "bireal", "-i", "1,3,4,4").exit_code == 0


def test_names_that_are_no_utf8_are_written_as_text() -> None:
    name = b"caf\xe9/\xf0\x9f\x8c\xb1".decode("utf-8", "surrogateescape")
    assert as_text({name: [name, 1, None], "a": ("b",)}) == {
        "caf\\xe9/\U0001f331": ["caf\\xe9/\U0001f331", 1, None],
        "a": ["b"],
    }
    assert as_text("\ud800") == r"\ud800"


def test_a_model_from_a_file_whose_name_is_no_utf8_is_saved_and_read(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"n\xff.pt")
    torch.save(net(), file)
    converted = binarize.convert(str(file), "bireal", example_input=torch.zeros(2, 3, 8, 8))
    binarize.save(converted, tmp_path / "saved")
    again = binarize.load(tmp_path / "saved", model=net())
    assert again.report.to_json() is not None
    assert r"n\xff.pt" in (tmp_path / "saved" / "binarize.json").read_text().replace("\\\\", "\\")


def test_errors_repeat_no_control_characters() -> None:
    assert str(BinarizeError("a \x1b[31m\nb")) == "a \\x1b[31m\nb"
