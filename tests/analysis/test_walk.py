"""A model that cannot be run is converted all the same, loudly, by a walk over its modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from odd_nets import Broken
from torch import Tensor, nn
from typer.testing import CliRunner

import binarize
from binarize.cli import app
from binarize.conversion.conversion import conversion_of
from binarize.errors import CaptureError, NothingToBinarizeError, StrictError, UsageError
from binarize.layers.layer import BinaryLayer
from binarize.planning.record.capture import CalibrationState


class Mute(Broken):
    """Runs, but only on inputs of which nobody knows."""

    def forward(self, x: Tensor, secret: str) -> Tensor:
        assert secret == "sesame"
        pooled = self.body(self.stem(x)).mean((2, 3))
        return self.out(self.hidden(pooled))


def binary_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BinaryLayer)]


@pytest.mark.parametrize("options", [{}, {"example_input": nets.pictures(2)}, {"input_shape": (1, 3, 8, 8)}])
def test_a_model_whose_forward_raises_is_walked_and_says_why(options: dict[str, Any]) -> None:
    model = binarize.convert(nets.seeded(Broken), "adabin", **options)
    assert binary_names(model) == ["body.0", "hidden"]
    report = model.report
    assert (report.capture, report.first, report.last) == ("walk", ("stem",), ("out",))
    assert report.warnings[0].startswith("module walk: the model was not run")
    assert ("ValueError: out of order at odd_nets.py" in report.warnings[0]) == bool(options)
    assert "level: module walk" in str(report)
    assert report.checks == ()


def test_binary_layers_bring_norm_and_threshold_along() -> None:
    model = binarize.convert(nets.seeded(Broken), "bireal")
    convolution, linear = model.body[0], model.hidden
    assert isinstance(convolution.norm, nn.BatchNorm2d)
    assert isinstance(linear.norm, nn.LayerNorm)
    assert all(layer.threshold is not None and layer.shortcut is None for layer in (convolution, linear))
    # The same layer takes tables of features and sequences of them.
    assert linear(torch.randn(5, 32)).shape == (5, 48)
    assert linear(torch.randn(5, 7, 32)).shape == (5, 7, 48)


@pytest.mark.parametrize("scheme", ["adabin", "bireal", "bnn", "xnor", "reactnet", "dorefa"])
def test_what_the_walk_made_is_trained_where_the_model_runs_after_all(scheme: str) -> None:
    model = binarize.convert(nets.seeded(Mute), scheme).train()
    model(nets.pictures(4), "sesame").square().sum().backward()
    used = [model.stem, model.body[0], model.hidden, model.out]
    assert all(layer.weight.grad.isfinite().all() and layer.weight.grad.any() for layer in used)


def test_real_images_of_a_model_that_was_not_run_are_not_called_noise() -> None:
    model = binarize.convert(nets.seeded(Broken), "bireal", example_input=nets.pictures(4))
    conversion = conversion_of(model)
    assert conversion is not None and conversion.plan.capture.calibration.state is CalibrationState.NOT_RUN


def test_saved_and_loaded_is_bit_equal(tmp_path: Path) -> None:
    model = binarize.convert(nets.seeded(Mute), "adabin")
    binarize.save(model, tmp_path / "net")
    again = binarize.load(tmp_path / "net", model=Mute())
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values()))
    x = nets.pictures(2)
    assert torch.equal(again.eval()(x, "sesame"), model.eval()(x, "sesame"))
    assert again.report.warnings == model.report.warnings


def test_the_original_is_unchanged() -> None:
    model = nets.seeded(Broken)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    binarize.convert(model, "adabin")
    assert not binary_names(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_unknown_input_is_asked_for_in_the_warning() -> None:
    warning = binarize.plan(nets.seeded(Mute), "adabin").report.warnings[0]
    assert "its forward takes x, secret: give a shape for each in this order" in warning
    assert "--input-shape" in warning and "example_input=(x, secret)" in warning


def test_strict_refuses_a_walk() -> None:
    with pytest.raises(StrictError, match="module walk"):
        binarize.convert(nets.seeded(Broken), "adabin", strict=True)


def test_a_wrong_example_of_a_model_that_runs_is_an_error_and_no_walk() -> None:
    model = nets.seeded(nets.ConvRelu)
    with pytest.raises(CaptureError, match=r"does not run on the example input \(2, 5, 16, 16\)") as caught:
        binarize.convert(model, "adabin", example_input=torch.randn(2, 5, 16, 16))
    assert "it runs on (1, 3, 16, 16)" in str(caught.value)


def test_a_shape_without_a_batch_axis_is_answered_with_one() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(CaptureError, match=r"it runs on \(1, 1, 9, 9\), a batch of one"):
        binarize.convert(model, "bireal", example_input=torch.randn(1, 9, 9))


def test_nothing_to_swap_is_a_capture_error_with_both_reasons() -> None:
    class Empty(Broken):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.tokens, self.attention = nn.Embedding(4, 4), nn.MultiheadAttention(4, 2)

    with pytest.raises(CaptureError, match="out of order") as caught:
        binarize.convert(Empty(), "adabin", example_input=torch.zeros(1, 4))
    assert "nor can a walk over its modules swap anything: tokens: an embedding is looked up" in str(
        caught.value
    )


def test_rules_that_keep_everything_find_nothing_to_binarize() -> None:
    with pytest.raises(NothingToBinarizeError):
        binarize.convert(nets.seeded(Broken), "adabin", keep=["**"])


def test_calibration_data_on_which_it_does_not_run_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="does not run on the calibration data: ValueError: out of order"):
        binarize.convert(nets.seeded(Broken), "adabin", calibrate=[nets.pictures(4)])


def test_the_command_says_so_and_writes_the_folder(tmp_path: Path) -> None:
    code = "from odd_nets import Broken\n"
    (tmp_path / "own.py").write_text(code)
    folder = tmp_path / "out"
    run = CliRunner().invoke(app, ["convert", f"{tmp_path}/own.py:Broken", "-o", str(folder), "--json"])
    assert run.exit_code == 0, run.output
    report = json.loads(run.stdout)["report"]
    assert report["capture"] == "walk"
    assert "module walk" in run.stderr
    assert binary_names(binarize.load(folder, source=f"{tmp_path}/own.py:Broken")) == ["body.0", "hidden"]
