"""Carry out one trial, wherever it runs: the result depends on the trial alone.

In the trial's folder there is what `binarize finetune` writes: a checkpoint while it runs, metrics.csv, finetune.json and
the trained network. finetune.json tells when it is finished, and then holds the result.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from binarize.conversion.conversion import conversion_of
from binarize.conversion.convert import convert
from binarize.errors import UsageError
from binarize.modules.modes import torch_threads
from binarize.schemes.recipe import Recipe
from binarize.studies.grid.keys import RECIPE_KEYS
from binarize.studies.grid.trial import Resources, Trial
from binarize.studies.images import TrialImages, open_images
from binarize.studies.memory import peak_memory
from binarize.studies.network import (
    drop_before_classifier,
    float_costs,
    prune,
    source_of,
    with_weights,
    without_dropout,
)
from binarize.studies.results_schema import check_result
from binarize.training.data import ImageData
from binarize.training.evaluate import evaluate
from binarize.training.evaluation.scores import Scores
from binarize.training.finetune import fit_module
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe, one_stage
from binarize.training.records.folder import TrainingFolder
from binarize.training.records.metrics import read_metrics
from binarize.training.records.run import DataOptions
from binarize.training.teachers.find import TeacherName

__all__ = ["run_trial"]


def run_trial(trial: Trial, study: Path, resources: Resources) -> dict[str, Any]:
    """The result of a trial as JSON values: the recorded one, or a new one, going on from its last checkpoint.

    Raises: whatever ends the trial; the folder then holds what it came to.
    """
    folder = TrainingFolder(trial.home(study))
    record = folder.record()
    if record.get("finished"):
        told: Any = (record.get("result") or {}).get("study")
        check_result(told, f"{folder.path / 'finetune.json'}: result.study")
        found: dict[str, Any] = told
        return found
    # With another number of threads sums have other last digits.
    with torch_threads(resources.threads):
        return _carried_out(trial, study, resources, folder, again=bool(record))


def _carried_out(
    trial: Trial, study: Path, resources: Resources, folder: TrainingFolder, again: bool
) -> dict[str, Any]:
    """The result of a trial that is begun, or gone on with `again` where a checkpoint is there."""
    started = _Started(trial, study, resources)
    model, recipe, teachers = started.floating() if trial.kind == "float" else started.binary()
    images = started.images
    fit = fit_module()
    stored = folder.open(again and folder.checkpoint.is_file(), force=True)
    run = prepare(
        model,
        images.train,
        recipe,
        teacher=teachers,
        options=DataOptions(images.held, preprocessing=images.preprocessing),
        seed=trial.seed,
        stored=stored,
        fetch=resources.download,
    )
    settings = fit.Settings(
        machine=fit.Machine.here(_device(resources), precision=trial.get("precision", "32")),
        workers=resources.workers,
        channels_last=bool(trial.get("channels_last")),
        how_to_resume="the same study goes on from there",
    )
    fit.fit(run, settings, folder, stored)
    model = started.unwrapped(model)
    training = dict(folder.result or {})
    result = {
        **trial.to_json(),
        "state": "finished",
        **_tested(model, images, _device(resources)),
        **{key: training.get(key) for key in ("epoch", "epochs", "images")},
        "teacher": str(run.teachers),
        **_times(folder),
        **peak_memory(),
        "costs": started.costs(model),
        "threads": resources.threads,
        "resumed": stored is not None,
    }
    folder.result = {**training, "study": result}
    folder.finish(model, run.record())
    # A finished trial needs no checkpoint, which is larger than the network.
    shutil.rmtree(folder.checkpoint.parent)
    return result


def _device(resources: Resources) -> str:
    if resources.device != "auto":
        return resources.device
    return "cuda" if resources.gpus else "cpu"


class _Started:
    """A trial with its float network loaded and its images opened."""

    def __init__(self, trial: Trial, study: Path, resources: Resources) -> None:
        self.trial = trial
        self.source = source_of(trial, resources.download)
        self.fetch = resources.download
        self.images = open_images(trial, self.source.module, resources)
        self._weights = None if trial.base is None else trial.base.home(study)

    def floating(self) -> tuple[nn.Module, Recipe, Sequence[TeacherName]]:
        """(the float network to train, by what recipe, with which teachers)."""
        model = self._prepared(self._trained())
        recipe = Recipe().changed(self._changes(Recipe()))
        return model, recipe, self._teachers(["none"], None)

    def binary(self) -> tuple[nn.Module, Recipe, Sequence[TeacherName]]:
        """(the converted network, by what recipe it is trained, with which teachers)."""
        trial = self.trial
        reference = self._trained()
        scratch = trial.get("start") == "scratch"
        # The float network itself may be needed whole: it teaches.
        start = self._prepared(source_of(trial, self.fetch).module if scratch else copy.deepcopy(reference))
        model = convert(start, rules=trial.rules, example_input=self.images.example, seed=trial.seed)
        given = trial.recipe if trial.recipe is None or trial.recipe == "paper" else dict(trial.recipe)
        changes = self._changes(chosen_recipe(model, given))
        stage = trial.get("stage")
        said = one_stage(bool(trial.get("two_stage")), None if stage in (None, "none") else str(stage))
        recipe = chosen_recipe(model, given, changes, stage=said)
        return model, recipe, self._teachers([recipe.teacher], reference)

    def unwrapped(self, model: nn.Module) -> nn.Module:
        """The trained network as it is stored: a float one has its weights under the names of its source."""
        if self.trial.kind == "float" and self.trial.get("dropout"):
            return without_dropout(model, self.images.example)
        return model

    def costs(self, model: nn.Module) -> dict[str, Any]:
        """Operations and bytes."""
        conversion = conversion_of(model)
        if conversion is None:
            return asdict(float_costs(model, self.images.example[:2]))
        return asdict(conversion.report.totals)

    def _trained(self) -> nn.Module:
        """The float network with the weights that the trial starts from or learns from."""
        module = self.source.module
        return module if self._weights is None else with_weights(module, self._weights)

    def _prepared(self, module: nn.Module) -> nn.Module:
        example = self.images.example
        if ratio := self.trial.get("prune"):
            prune(module, ratio, example)
        if probability := self.trial.get("dropout"):
            module = drop_before_classifier(module, probability, example)
        return module

    def _changes(self, recipe: Recipe) -> dict[str, Any]:
        """What the settings change in a recipe."""
        found = {key: self.trial.settings[key] for key in RECIPE_KEYS if key in self.trial.settings}
        if policy := self.trial.get("rand_augment"):
            found["augment"] = f"{found.get('augment', recipe.augment)}+{policy}"
        return found

    def _teachers(self, usual: list[str], reference: nn.Module | None) -> list[TeacherName]:
        names = self.trial.place("teacher") or usual
        source = self.source
        random = source.kind in ("torchvision", "timm") and source.weights is None
        if "source" in names and self._weights is None and random:
            raise UsageError(
                f"the float network {source.spec} has random weights and is not trained, so it cannot teach\n"
                "  leave out float: none, name published weights, or say teacher: none"
            )
        return [reference if name == "source" and reference is not None else name for name in names]


def _scored(model: nn.Module, data: ImageData | None, images: TrialImages, device: str) -> Scores | None:
    """How the model does on some images, by the plain cross entropy and in float32, however it was trained."""
    if data is None:
        return None
    return evaluate(model, data, preprocessing=images.preprocessing, device=device).model


def _tested(model: nn.Module, images: TrialImages, device: str) -> dict[str, Any]:
    """What the images say that were held out, and those to test on; None where there are none."""
    held = _scored(model, images.held, images, device)
    test = _scored(model, images.test, images, device)
    return {
        "top1": None if test is None else test.top1,
        "top5": None if test is None else test.top5,
        "loss": None if test is None else test.loss,
        "classes": [] if test is None else [score.share for score in test.classes],
        "test_images": 0 if images.test is None else len(images.test),
        "val_top1": None if held is None else held.top1,
        "val_loss": None if held is None else held.loss,
        "val_images": 0 if images.held is None else len(images.held),
    }


def _times(folder: TrainingFolder) -> dict[str, Any]:
    """Seconds of every epoch, those before an interruption too, and the training loss after each."""
    rows: Sequence[Mapping[str, Any]] = read_metrics(folder.metrics)
    seconds = [float(row["seconds"]) for row in rows]
    return {"seconds": seconds, "minutes": sum(seconds) / 60, "curve": [row["loss"] for row in rows]}
