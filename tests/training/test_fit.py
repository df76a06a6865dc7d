"""Training as a whole: it learns, it can be interrupted anywhere, and it leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import binarize
from binarize.demo.digits import trained_vgg
from binarize.errors import CheckError, StoppedError, UsageError
from binarize.schemes.recipe import Recipe
from binarize.training.data import Augment, ImageData, open_data
from binarize.training.fit import Settings, fit
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe
from binarize.training.records.folder import TrainingFolder
from binarize.training.records.metrics import Row, read_metrics
from binarize.training.records.run import DataOptions

Converted = Callable[..., nn.Module]
# 24 images in batches of 8: three steps an epoch.
DATA = "fake:24"
RECIPE = {"batch_size": 8, "epochs": 2, "augment": "shift1+flip", "teacher": "none"}
LISTENER = Callable[[Row], None]


class Crash(Exception):
    """As if the process had been killed."""


def crash_at(step: int) -> Any:
    """A loss that is cross entropy until it is asked for the given time."""
    calls = 0

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        if torch.is_grad_enabled():
            calls += 1
            if calls == step:
                raise Crash
        return nn.functional.cross_entropy(output, labels)

    return loss


def train(
    model: nn.Module,
    folder: Path | None = None,
    *,
    resume: bool = False,
    loss: Any = None,
    teacher: Any = None,
    validated: bool = False,
    workers: int | None = None,
    **changes: Any,
) -> list[Row]:
    """A training with a checkpoint after every step."""
    target = None if folder is None else TrainingFolder(folder)
    stored = None if target is None else target.open(resume)
    recipe = chosen_recipe(model, {**RECIPE, **changes}, stored=stored)
    options = DataOptions(DATA if validated else None)
    run = prepare(
        model, DATA, recipe, loss=loss or crash_at(0), teacher=teacher, stored=stored, options=options
    )
    rows = fit(run, Settings(checkpoint_steps=1, workers=workers), target, stored)
    if target is not None:
        target.finish(model, run.record())
    return rows


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_bit_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    different = [name for name in wanted if not torch.equal(found[name], wanted[name])]
    assert not different


@pytest.mark.parametrize(
    "scheme, changes",
    [
        ("bop", {"binary_optimizer": "bop", "binary_lr": 0.1}),
        ("bayesbinn", {"binary_optimizer": "bayesbinn", "binary_lr": 0.01}),
        ("rbnn", {}),
        ("rebnn", {}),
        ("recu", {}),
    ],
)
@pytest.mark.sampled(3)
def test_what_a_scheme_keeps_between_steps_goes_on_bit_equal(
    converted: Converted, tmp_path: Path, scheme: str, changes: dict[str, Any]
) -> None:
    changes = {**changes, "epochs": 2}
    undisturbed = converted("ConvRelu", scheme)
    train(undisturbed, tmp_path / "whole", **changes)
    with pytest.raises(Crash):
        train(converted("ConvRelu", scheme), tmp_path / "net", loss=crash_at(5), **changes)
    resumed = converted("ConvRelu", scheme)
    train(resumed, tmp_path / "net", resume=True, **changes)
    assert_bit_equal(weights(resumed), weights(undisturbed))


@pytest.mark.parametrize("activations", ["hard", "soft"])
@pytest.mark.parametrize("scheme", ["bnn", "naive-bernoulli"])
def test_a_freezing_killed_within_an_epoch_goes_on_bit_equal(
    converted: Converted, tmp_path: Path, scheme: str, activations: str
) -> None:
    stage = {
        "freeze": "progressive",
        "share": 0.25,
        "select": "random",
        "refresh": 0.2,
        "activations": activations,
    }
    changes = {"stages": [stage], "epochs": 2}
    undisturbed = converted("ConvRelu", scheme)
    rows = train(undisturbed, tmp_path / "whole", **changes)
    assert [row["frozen"] for row in rows] == pytest.approx([0.5, 1.0], abs=0.01)
    with pytest.raises(Crash):
        train(converted("ConvRelu", scheme), tmp_path / "net", loss=crash_at(5), **changes)
    resumed = converted("ConvRelu", scheme)
    train(resumed, tmp_path / "net", resume=True, **changes)
    assert_bit_equal(weights(resumed), weights(undisturbed))
    assert read_metrics(tmp_path / "net" / "metrics.csv")[-1]["frozen"] == 1


TWO_STAGES = {"stages": [{"binary": "input", "epochs": 1}, {"epochs": 1}]}


@pytest.mark.parametrize(
    "changes",
    [{}, TWO_STAGES, {"accumulate": 2}, {"ema": 0.9, "norm_images": 16}],
    ids=["plain", "stages", "accumulate", "average"],
)
def test_a_training_killed_anywhere_goes_on_bit_equal(
    converted: Converted, tmp_path: Path, changes: dict[str, Any]
) -> None:
    # The network has dropout, BatchNorm and a schedule; the images are shifted and mirrored.
    undisturbed = converted("ConvRelu")
    wanted_rows = train(undisturbed, tmp_path / "whole", **changes)
    for step in (1, 2, 3, 4, 5, 6):
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            train(converted("ConvRelu"), folder, loss=crash_at(step), **changes)
        resumed = converted("ConvRelu")
        train(resumed, folder, resume=True, **changes)
        assert_bit_equal(weights(resumed), weights(undisturbed))
        rows = read_metrics(folder / "metrics.csv")
        assert [row["step"] for row in rows] == [row["step"] for row in wanted_rows]
        for row, wanted in zip(rows, wanted_rows, strict=True):
            for key in ("loss", "val_loss", "flips", "lr", "stage", "epoch"):
                assert row[key] == (
                    None if wanted.get(key) is None else pytest.approx(wanted[key], rel=1e-4)
                ), key


def test_a_training_killed_before_its_first_checkpoint_begins_as_it_was_meant(
    converted: Converted, tmp_path: Path
) -> None:
    meant: dict[str, Any] = {"epochs": 1, "lr": 0.02, "ema": 0.5}
    undisturbed, resumed = converted("ConvRelu"), converted("ConvRelu")
    train(undisturbed, tmp_path / "whole", **meant)
    with pytest.raises(Crash):
        train(converted("ConvRelu"), tmp_path / "net", loss=crash_at(1), **meant)
    folder = TrainingFolder(tmp_path / "net")
    stored = folder.open(resume=True)
    assert stored is not None and not folder.checkpoint.exists()
    recipe = chosen_recipe(resumed, None, stored=stored)
    assert (recipe.epochs, recipe.lr, recipe.ema, recipe.teacher) == (1, 0.02, 0.5, "none")
    fit(prepare(resumed, DATA, recipe, loss=crash_at(0), stored=stored), Settings(), folder, stored)
    assert_bit_equal(weights(resumed), weights(undisturbed))


def test_the_same_seed_is_the_same_training_whatever_went_before(converted: Converted) -> None:
    first, second, other = (converted("ConvRelu") for _ in range(3))
    train(first)
    torch.manual_seed(99)
    train(second)
    assert_bit_equal(weights(second), weights(first))
    run = prepare(other, DATA, chosen_recipe(other, RECIPE), seed=1)
    fit(run)
    assert not torch.equal(
        other.state_dict()["classifier.6.weight"], first.state_dict()["classifier.6.weight"]
    )


def test_training_leaves_the_process_and_the_model_as_they_were(converted: Converted) -> None:
    model, float_model = converted("ConvRelu"), nets.seeded(nets.ALL["ConvRelu"]).train()
    before = {name: (type(m), m.training) for name, m in model.named_modules()}
    keys, flags = list(model.state_dict()), [p.requires_grad for p in model.parameters()]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    taught = weights(float_model)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    train(model, teacher=float_model, stages=[{"binary": []}, {}])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted
    assert {name: (type(m), m.training) for name, m in model.named_modules()} == before
    assert list(model.state_dict()) == keys and [p.requires_grad for p in model.parameters()] == flags
    assert not any(m._forward_hooks for m in model.modules())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_bit_equal(weights(float_model), taught)
    assert float_model.training


def test_it_learns_and_says_how(converted: Converted, tmp_path: Path) -> None:
    rows = train(converted("ConvRelu"), tmp_path / "net", epochs=15)
    assert len(rows) == 15
    first, last = rows[0], rows[-1]
    assert last["loss"] < 0.7 * first["loss"]  # type: ignore[operator]
    assert last["lr"] < first["lr"]  # type: ignore[operator]
    layers = [f"flips/{d.layer.name}" for d in converted("ConvRelu")._binarize.plan.binarized]  # type: ignore[union-attr]
    assert set(layers) <= set(first)
    assert 0 < first["flips"] < 0.5  # type: ignore[operator]
    assert last["flips"] < first["flips"]  # type: ignore[operator]
    assert read_metrics(tmp_path / "net" / "metrics.csv")[-1]["step"] == 45


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3])
def test_a_signal_saves_and_says_how_to_go_on(
    converted: Converted, tmp_path: Path, number: signal.Signals, step: int
) -> None:
    undisturbed = converted("ConvRelu")
    train(undisturbed)
    calls = 0

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == step and torch.is_grad_enabled():
            os.kill(os.getpid(), number)
        return nn.functional.cross_entropy(output, labels)

    with pytest.raises(
        StoppedError, match=rf"interrupted by {number.name} after step {step} (.|\n)*resume=True"
    ) as caught:
        train(converted("ConvRelu"), tmp_path / "net", loss=loss)
    assert caught.value.exit_code == 130
    assert str(tmp_path / "net" / "checkpoints" / "last.ckpt") in str(caught.value)
    resumed = converted("ConvRelu")
    train(resumed, tmp_path / "net", resume=True)
    assert_bit_equal(weights(resumed), weights(undisturbed))


def test_a_signal_to_the_processes_that_read_images_too_saves(converted: Converted, tmp_path: Path) -> None:
    """As a terminal, `timeout` and batch systems send it: to the whole group."""

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return nn.functional.cross_entropy(output, labels)

    with pytest.raises(StoppedError, match=r"interrupted by SIGTERM after step 1 (.|\n)*resume=True"):
        train(converted("ConvRelu"), tmp_path / "net", loss=loss, workers=2)


@pytest.mark.parametrize("step", [3, "validation"], ids=str)
def test_sigterm_at_the_end_of_an_epoch_saves_too(
    converted: Converted, tmp_path: Path, step: int | str
) -> None:
    undisturbed = converted("ConvRelu")
    train(undisturbed, validated=True)
    calls = 0

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        # Not in the run before the training that tries the validation.
        if calls == 3 and torch.is_grad_enabled() == (step == 3):
            os.kill(os.getpid(), signal.SIGTERM)
        return nn.functional.cross_entropy(output, labels)

    with pytest.raises(StoppedError, match=r"interrupted by SIGTERM after step 3 (.|\n)*resume=True"):
        train(converted("ConvRelu"), tmp_path / "net", loss=loss, validated=True)
    resumed = converted("ConvRelu")
    train(resumed, tmp_path / "net", resume=True, validated=True)
    assert_bit_equal(weights(resumed), weights(undisturbed))


def test_without_a_folder_a_signal_says_that_nothing_was_saved(converted: Converted) -> None:
    def loss(output: Tensor, labels: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(output, labels)

    with pytest.raises(StoppedError, match="nothing was saved"):
        train(converted("ConvRelu"), loss=loss)


def test_a_loss_that_is_nan_stops_with_the_layers_name_and_a_good_checkpoint(
    converted: Converted, tmp_path: Path
) -> None:
    model = converted("ConvRelu")
    calls = 0

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 2:
            # The weights overflow before the third step.
            model.get_parameter("classifier.6.bias").data.fill_(float("inf"))
        return nn.functional.cross_entropy(output, labels)

    with pytest.raises(CheckError, match=r"step 3 .*classifier.6.bias is not finite") as caught:
        train(model, tmp_path / "net", loss=loss)
    assert caught.value.exit_code == 7
    state = torch.load(tmp_path / "net" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point())


def test_an_output_that_is_infinite_names_the_layer(converted: Converted) -> None:
    model = converted("ConvRelu")
    model.get_parameter("features.0.weight").data.fill_(3e38)
    with pytest.raises(CheckError, match=r"step 1 .*first in layer features\.0 \(Conv2d\)"):
        train(model)


def test_a_gradient_that_is_nan_stops_before_the_step(converted: Converted) -> None:
    model = converted("ConvRelu")
    before = weights(model)

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        # Finite, with an infinite slope.
        return (output - output.detach()).abs().pow(0.5).sum() + nn.functional.cross_entropy(output, labels)

    with pytest.raises(CheckError, match=r"step 1 .*the gradient of classifier.6.\w+ is not finite"):
        train(model, loss=loss)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_teacher_is_part_of_no_checkpoint(converted: Converted, tmp_path: Path) -> None:
    train(converted("ConvRelu"), tmp_path / "net", teacher=nets.seeded(nets.ALL["ConvRelu"]))
    state = torch.load(tmp_path / "net" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in state} == {"model"}


def test_float_models_train_too(tmp_path: Path) -> None:
    model = nets.seeded(nets.ALL["ConvRelu"])
    rows = train(model, tmp_path / "net", epochs=3)
    assert rows[-1]["loss"] < rows[0]["loss"]  # type: ignore[operator]
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "net" / "model.safetensors")
    assert_bit_equal(saved, weights(model))


def test_mixup_and_channels_last_run(converted: Converted) -> None:
    model = converted("ConvRelu")
    run = prepare(model, DATA, chosen_recipe(model, {**RECIPE, "mixup": 0.2, "cutmix": 1.0}))
    rows = fit(run, Settings(channels_last=True))
    assert len(rows) == 2
    assert model.get_parameter("features.2.weight").is_contiguous()


@pytest.mark.parametrize("source", ["loader", "unlabelled", "workers"])
def test_ones_own_data_trains_and_resumes(converted: Converted, tmp_path: Path, source: str) -> None:
    from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

    images, labels = nets.pictures(24), torch.arange(24) % 10

    def data() -> Any:
        if source == "unlabelled":
            return images
        if source == "workers":
            return TensorDataset(images, labels)
        return DataLoader(TensorDataset(images, labels), 8, sampler=WeightedRandomSampler([1.0] * 24, 24))

    float_model = nets.seeded(nets.ALL["ConvRelu"])
    found = []
    for folder, stop in ((None, None), (tmp_path / "net", 5)):
        model = converted("ConvRelu")
        target = None if folder is None else TrainingFolder(folder)
        for resume in (False, True) if folder is not None else (False,):
            model = converted("ConvRelu")
            stored = None if target is None else target.open(resume)
            run = prepare(
                model, data(), chosen_recipe(model, RECIPE, stored=stored), teacher=float_model, stored=stored
            )
            listen = None if resume or stop is None else raise_crash
            workers = 2 if source == "workers" else 0
            settings = Settings(checkpoint_steps=1, listen=listen, workers=workers)
            try:
                fit(run, settings, target, stored)
            except Crash:
                continue
        found.append(weights(model))
    assert_bit_equal(found[1], found[0])


def test_images_that_cannot_be_read_are_counted_and_named(converted: Converted, tmp_path: Path) -> None:
    # One folder for each output of the model.
    for name in "abcdefghij":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4 if name in "ab" else 0):
            Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(tmp_path / "data" / name / f"{number}.png")
    broken = tmp_path / "data" / "a" / "2.png"
    broken.write_bytes(b"")
    model = converted("ConvRelu")
    run = prepare(model, str(tmp_path / "data"), chosen_recipe(model, RECIPE))
    rows = fit(run, Settings(workers=0), TrainingFolder(tmp_path / "net"))
    assert [row["unreadable"] for row in rows] == [1, 1]
    (line,) = (tmp_path / "net" / "unreadable.txt").read_text().splitlines()
    assert line.startswith(f"{broken}: ")


def raise_crash(row: Row) -> None:
    raise Crash


def test_a_run_that_is_resumed_must_be_the_same(converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        train(converted("ConvRelu"), tmp_path / "net", loss=crash_at(3))
    model = converted("ConvRelu")
    folder = TrainingFolder(tmp_path / "net")
    with pytest.raises(UsageError, match=r"holds an unfinished training(.|\n)*resume=True"):
        folder.open(resume=False)
    stored = folder.open(resume=True)
    assert stored is not None and stored["step"] == 2
    with pytest.raises(UsageError, match="has epochs 2, not 9"):
        chosen_recipe(model, {"epochs": 9}, stored=stored)
    recipe = chosen_recipe(model, stored=stored)
    assert (recipe.epochs, recipe.augment) == (2, "shift1+flip")
    with pytest.raises(UsageError, match="has images 24, not 16"):
        prepare(model, DATA, recipe, options=DataOptions(limit=16), stored=stored)
    with pytest.raises(UsageError, match="has seed 0, not 5"):
        prepare(model, DATA, recipe, seed=5, stored=stored)


def test_folders_that_hold_other_things_are_left_alone(converted: Converted, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        TrainingFolder(tmp_path).open(resume=False)
    with pytest.raises(UsageError, match="holds no training to resume"):
        TrainingFolder(tmp_path).open(resume=True)
    train(converted("ConvRelu"), tmp_path / "net", epochs=1)
    with pytest.raises(UsageError, match="its training is finished"):
        TrainingFolder(tmp_path / "net").open(resume=True)
    with pytest.raises(UsageError, match="holds a finished training, which would be lost"):
        TrainingFolder(tmp_path / "net").open(resume=False)
    assert TrainingFolder(tmp_path / "net").open(resume=False, force=True) is None


def test_a_checkpoint_with_a_flipped_bit_is_told(converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        train(converted("ConvRelu"), tmp_path / "net", loss=crash_at(3))
    folder = TrainingFolder(tmp_path / "net")
    whole = folder.checkpoint.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 20):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        folder.checkpoint.write_bytes(data)
        with pytest.raises(CheckError, match=r"last\.ckpt: damaged"):
            folder.open(resume=True)
    # Those of older versions have no digest.
    folder.checkpoint.write_bytes(whole)
    torch.save(torch.load(folder.checkpoint, weights_only=True), folder.checkpoint)
    stored = folder.open(resume=True)
    assert stored is not None and stored["sealed"] is False
    resumed, undisturbed = converted("ConvRelu"), converted("ConvRelu")
    train(resumed, tmp_path / "net", resume=True)
    train(undisturbed)
    assert_bit_equal(weights(resumed), weights(undisturbed))


def test_a_record_that_was_changed_is_told(converted: Converted, tmp_path: Path) -> None:
    train(converted("ConvRelu"), tmp_path / "net", epochs=1)
    path = tmp_path / "net" / "finetune.json"
    assert TrainingFolder(tmp_path / "net").record()["seed"] == 0
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(CheckError, match=r"finetune\.json: was changed after it was written"):
        TrainingFolder(tmp_path / "net").record()


@pytest.mark.parametrize("resumed", [False, True])
def test_a_folder_of_a_training_that_never_began_is_taken(tmp_path: Path, resumed: bool) -> None:
    folder = TrainingFolder(tmp_path / "net")
    folder.checkpoint.parent.mkdir(parents=True)
    assert folder.open(resume=False) is None
    if resumed:
        record = {"data": "digits", "images": 8, "classes": [], "validation": None, "preprocessing": None}
        record |= {"teacher": "none", "seed": 0, "recipe": {}, "options": {}}
        folder.begin(record, resumed=False)
        stored = folder.open(resume=True)
        assert stored is not None and {**record, "finished": False}.items() <= stored["record"].items()
    assert folder.open(resume=False) is None


def test_training_in_the_models_own_folder_keeps_what_else_is_there(tmp_path: Path) -> None:
    float_model = trained_vgg()
    folder = binarize.save(binarize.convert(float_model, "bireal"), tmp_path / "net")
    (folder / "notes.txt").write_text("mine")
    model = binarize.finetune(folder, DATA, recipe=RECIPE, epochs=1)
    again = binarize.load(folder)
    assert_bit_equal(weights(again), weights(model))
    assert (folder / "notes.txt").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} >= {
        "metrics.csv",
        "finetune.json",
        "checkpoints",
        "report.md",
    }
    assert not [path.name for path in tmp_path.iterdir() if path.name != "net"]


@pytest.mark.parametrize(
    "data, message",
    [
        (
            (torch.zeros(8, 3, 5, 5), torch.zeros(8, dtype=torch.long)),
            r"does not take images of shape \[\(2, 3, 5, 5\)\]",
        ),
        (
            (torch.zeros(8, 3, 16, 16), torch.full((8,), 12)),
            "the data has 13 classes and the model 10 outputs",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_before_anything_begins(
    converted: Converted, tmp_path: Path, data: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        binarize.finetune(converted("ConvRelu"), data, teacher="none", out=tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_validation_is_what_is_asked_for(converted: Converted) -> None:
    model = converted("ConvRelu")

    def opened(validation: Any) -> tuple[ImageData, ImageData | None]:
        options = DataOptions(validation=validation)
        run = prepare(model, "fake:40", chosen_recipe(model, RECIPE), options=options)
        return run.data, run.validation

    assert opened(False)[1] is None
    train_data, held = opened(0.25)
    assert held is not None and (len(train_data), len(held)) == (30, 10)
    assert len(opened(None)[1] or ()) == 10
    assert len(opened("fake:8")[1] or ()) == 2


@pytest.mark.parametrize("name, held, chosen", [("val", 4, 20), ("test", 2, 18)])
def test_no_epoch_is_chosen_by_a_test_set(
    converted: Converted, tmp_path: Path, name: str, held: int, chosen: int
) -> None:
    for part, (split, count) in enumerate((("train", 10), (name, 2))):
        for label in "abcdefghij":
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count if label in "ab" else 0):
                image = Image.new("RGB", (16, 16), (number, ord(label), part))
                image.save(tmp_path / split / label / f"{number}.png")
    model = converted("ConvRelu")
    run = prepare(model, str(tmp_path), chosen_recipe(model, RECIPE))
    assert run.validation is not None and (len(run.validation), len(run.data)) == (held, chosen)
    assert sum("held out" in note for note in run.data.notes) == (name == "test")
    colours = [
        data.dataset[i][0].getpixel((0, 0)) for data in (run.data, run.validation) for i in range(len(data))
    ]
    assert len(set(colours)) == held + chosen
    assert any(part for _, _, part in colours) == (name == "val")


def test_recipes_from_files_are_checked(converted: Converted, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("lr: 1.0e-4\nepochs: 3\n")
    model = converted("ConvRelu")
    assert (chosen_recipe(model, path).lr, chosen_recipe(model, path, {"epochs": 5}).epochs) == (1e-4, 5)
    assert chosen_recipe(model, "paper").lr == 0.1
    path.write_text("lr: 1.0e-4\nepoch: 3\n")
    with pytest.raises(
        binarize.errors.RuleError, match=rf'{path}:2:1  unknown key "epoch" .did you mean "epochs"'
    ):
        chosen_recipe(model, path)


def test_augmentation_follows_the_recipe(converted: Converted) -> None:
    assert Augment.parse(Recipe(augment="shift1+flip").augment) == Augment(shift=1, flip=True)
    data = open_data(DATA)
    assert data is not None
    with pytest.raises(UsageError, match='"flop"'):
        train(converted("ConvRelu"), augment="flop")
