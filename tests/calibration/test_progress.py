"""A calibration that was interrupted goes on where it stood, and ends with the bits of one that was not."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.calibration import progress, settle, steps
from binarize.disk.seal import save_sealed
from binarize.errors import CheckError

STEPS = {"steps": 3, "joint_steps": 4}


class Crash(Exception):
    """As if the process had been killed."""


class CrashAt:
    """Raises at the given report of progress."""

    def __init__(self, report: int) -> None:
        self.left = report

    def __call__(self, name: str, done: int, of: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)


def converted() -> tuple[nn.Module, nn.Module]:
    model = nets.seeded(nets.ConvBnRelu)
    return binarize.convert(model, "adabin", add_shortcuts=True, example_input=nets.pictures(4)), model


def calibrated(file: Path | None = None, **options: Any) -> dict[str, Tensor]:
    model, float_model = converted()
    binarize.calibrate(model, nets.pictures(8), float_model, progress=file, **{**STEPS, **options})
    return model.state_dict()


@cache
def uninterrupted() -> dict[str, Tensor]:
    return calibrated()


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []


# Two layers report once each, the four steps of all of them once each.
@pytest.mark.parametrize("report", range(1, 7))
def test_killed_anywhere_it_goes_on_bit_equal(report: int, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    with pytest.raises(Crash):
        calibrated(file, tick=CrashAt(report))
    assert file.is_file() == (report > 1)
    assert_same(calibrated(file), uninterrupted())


def test_what_was_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def counted(site: Any, *args: Any, **options: Any) -> tuple[float, float]:
        trained.append(site.name)
        return steps.reconstruct(site, *args, **options)

    monkeypatch.setattr(settle, "reconstruct", counted)
    file = tmp_path / "kept"
    with pytest.raises(Crash):
        calibrated(file, tick=CrashAt(4))
    assert trained == ["layers.3", "layers.6"]
    reports: list[tuple[str, int]] = []
    calibrated(file, tick=lambda name, done, of: reports.append((name, done)))
    assert trained == ["layers.3", "layers.6"]
    assert reports[-4:] == [("all layers", done) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 2}, {"fit": "variance"}, {"joint_steps": 0}])
def test_another_calibration_begins_anew(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "kept"
    calibrated(file)
    assert_same(calibrated(file, **change), calibrated(**change))


def test_a_scheme_that_starts_from_the_same_tensors_is_another_calibration(tmp_path: Path) -> None:
    def of(scheme: str, file: Path | None) -> dict[str, Tensor]:
        model = nets.seeded(nets.ConvBnRelu)
        converted = binarize.convert(model, scheme, example_input=nets.pictures(4))
        binarize.calibrate(converted, nets.pictures(8), model, progress=file, **STEPS)
        return converted.state_dict()

    of("xnor", tmp_path / "kept")
    assert_same(of("bireal", tmp_path / "kept"), of("bireal", None))


def test_where_nothing_can_be_kept_the_calibration_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="goes on without being kept"):
        found = calibrated(tmp_path / "file" / "kept")
    assert_same(found, uninterrupted())


@pytest.mark.parametrize("damage", ["empty", "nonsense", "short", "bit"])
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    calibrated(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"empty": b"", "nonsense": b"nonsense", "short": data[:-100], "bit": bytes(data)}
    file.write_bytes(damaged[damage])
    with pytest.raises(CheckError, match=r"kept: damaged(.|\n)*remove it, and the calibration begins anew"):
        calibrated(file)


def test_a_file_of_an_older_version_is_as_good_as_none(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    calibrated(file)
    torch.save(torch.load(file, weights_only=True), file)
    assert_same(calibrated(file), uninterrupted())


def test_closed_forms_alone_keep_nothing(tmp_path: Path) -> None:
    calibrated(tmp_path / "kept", steps=0, joint_steps=0)
    assert list(tmp_path.iterdir()) == []


GENERATOR = torch.Generator().get_state()
LAYER = {"parameters": [torch.zeros(2)], "generator": GENERATOR, "errors": [1.0, 0.5]}


@pytest.mark.parametrize(
    "change",
    [
        {"format": torch.ones(2)},
        {"layers": [LAYER]},
        {"layers": {"a": None}},
        {"layers": {"a": {**LAYER, "parameters": [None]}}},
        {"layers": {"a": {**LAYER, "parameters": [torch.zeros(2, device="meta")]}}},
        {"layers": {"a": {**LAYER, "parameters": [torch.zeros(2).to_sparse()]}}},
        {"layers": {"a": {**LAYER, "parameters": [torch.zeros(2, dtype=torch.complex64)]}}},
        {"layers": {"a": {**LAYER, "generator": torch.zeros(3, dtype=torch.uint8)}}},
        {"layers": {"a": {**LAYER, "errors": ["x", "y"]}}},
        {"joint": {"model": {}, "optimizer": {}, "generator": GENERATOR, "losses": [None]}},
        {"joint": nn.Linear(1, 1)},
    ],
)
def test_what_no_calibration_would_have_written_is_left(change: dict[str, Any], tmp_path: Path) -> None:
    content = {"format": 1, "key": "k", "layers": {"a": LAYER}, "joint": None}
    save_sealed(content, tmp_path / "kept")
    parameter = nn.Parameter(torch.ones(2))
    kept = progress.Progress(tmp_path / "kept", "k")
    assert kept.layer("a", [parameter], torch.Generator(), lambda: (9.0, 9.0)) == (1.0, 0.5)
    assert parameter.tolist() == [0.0, 0.0]
    save_sealed({**content, **change}, tmp_path / "kept")
    kept = progress.Progress(tmp_path / "kept", "k")
    assert kept.layer("a", [parameter], torch.Generator(), lambda: (9.0, 9.0)) == (9.0, 9.0)
    assert kept.joint() is None


def test_a_file_without_joint_steps_has_none(tmp_path: Path) -> None:
    save_sealed({"format": 1, "key": "k", "layers": {}}, tmp_path / "kept")
    assert progress.Progress(tmp_path / "kept", "k").joint() is None
