"""A model that was converted without images gets its thresholds from the images that it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

import binarize
from binarize.binarizers.reactnet import RSign
from binarize.conversion.checked.liveness import measure_liveness
from binarize.demo.digits import load_digits, trained_vgg
from binarize.layers.layer import BinaryLayer
from binarize.planning.record.capture import Calibrated, CalibrationState
from binarize.report.live import complaints
from binarize.training.data import Preprocessing
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe
from binarize.training.records.run import DataOptions, Run
from binarize.training.starts import IMAGES, draw_latent_weights, start_thresholds

DIGITS = Preprocessing((1, 8, 8), (0.3,), (0.38,))


def dead(**options: Any) -> nn.Module:
    """A network each of whose signs is +1, as after a conversion that knew nothing of its inputs."""
    shape = {"input_shape": (1, 1, 8, 8)} if "example_input" not in options else {}
    model = binarize.convert(trained_vgg(), "reactnet", **shape, **options)
    kill(model)
    return model


def kill(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, RSign):
            module.tau.data.fill_(-100)


def run_of(model: nn.Module, data: Any = "digits") -> Run:
    recipe = chosen_recipe(model, {"teacher": "none"})
    return prepare(model, data, recipe, options=DataOptions(preprocessing=DIGITS))


def complaining(model: nn.Module) -> int:
    images = load_digits().train_images[:256]
    shares = measure_liveness(model, [((images,), {})])
    return sum(1 for live in shares.values() if complaints(live))


def test_a_dead_model_that_never_saw_an_image_gets_thresholds_from_the_training_images() -> None:
    model: Any = dead()
    before = complaining(model)
    words = start_thresholds(run_of(model))
    assert before > 1 and words is not None and f"{IMAGES} training images" in words
    assert complaining(model) == 0
    plan = model._binarize.plan
    assert plan.capture.calibration == Calibrated(CalibrationState.DONE, IMAGES)
    assert plan.binarized[0].threshold == f"per channel, mean of {IMAGES} images"
    assert model.report.measured_on == "calibration images"
    # Now it has seen some: what training makes of them stays.
    kill(model)
    assert start_thresholds(run_of(model)) is None


def test_it_is_the_same_each_time_so_that_a_resumed_training_finds_it_again() -> None:
    first, second = dead(), dead()
    start_thresholds(run_of(first))
    torch.manual_seed(99)
    start_thresholds(run_of(second))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize(
    "options",
    [
        {"calibrate": False, "example_input": load_digits().train_images[:32]},
        {"example_input": load_digits().train_images[:32]},
    ],
    ids=["told not to", "calibrated"],
)
def test_a_model_that_was_calibrated_or_told_not_to_be_is_left_alone(options: dict[str, Any]) -> None:
    model = dead(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert start_thresholds(run_of(model)) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_reads_both_signs_is_left_alone() -> None:
    model = binarize.convert(trained_vgg(), "reactnet", input_shape=(1, 1, 8, 8))
    assert complaining(model) == 0
    assert start_thresholds(run_of(model)) is None


def test_a_model_that_was_trained_is_left_alone() -> None:
    model = binarize.convert(trained_vgg(), "reactnet", input_shape=(1, 1, 8, 8))
    options: dict[str, Any] = {"epochs": 1, "lr": 1e-9, "validation": False, "preprocessing": DIGITS}
    binarize.finetune(model, "digits", recipe={"teacher": "none"}, limit=64, progress=False, **options)
    kill(model)
    assert start_thresholds(run_of(model)) is None


def test_a_stream_is_not_begun() -> None:
    class Stream(IterableDataset[Any]):
        drawn = 0

        def __iter__(self) -> Iterator[Any]:
            for image, label in zip(load_digits().train_images, load_digits().train_labels):
                self.drawn += 1
                yield image, int(label)

    stream, model = Stream(), dead()
    run = run_of(model, stream)
    before = stream.drawn
    assert start_thresholds(run) is None and stream.drawn == before


def test_finetune_sets_them_before_the_first_step() -> None:
    model: Any = dead()
    binarize.finetune(
        model,
        "digits",
        recipe={"teacher": "none"},
        epochs=1,
        lr=1e-9,
        validation=False,
        preprocessing=DIGITS,
        progress=False,
    )
    assert model._binarize.plan.capture.calibration.images == IMAGES


def test_latent_weights_are_drawn_where_a_recipe_starts_from_such() -> None:
    drawn = []
    for _ in range(2):
        model = binarize.convert(trained_vgg(), "binaryconnect", input_shape=(1, 1, 8, 8))
        before = {name: value.clone() for name, value in model.named_parameters()}
        draw_latent_weights(run_of(model))
        assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
        recipe = chosen_recipe(model, "paper")
        run = prepare(model, "digits", recipe, options=DataOptions(preprocessing=DIGITS))
        draw_latent_weights(run)
        latent = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)}
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert changed == latent
        drawn.append(
            torch.cat([value.flatten() for name, value in model.named_parameters() if name in latent])
        )
    assert torch.equal(*drawn)
    assert -1 <= drawn[0].min() < -0.99 and 0.99 < drawn[0].max() <= 1 and drawn[0].mean().abs() < 0.05
