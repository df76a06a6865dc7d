"""Carry out a prepared training, stage after stage. Importing this imports pytorch-lightning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

from binarize.bernoulli.hardening import Hardened, harden_trained, soft_layers
from binarize.errors import REFUSALS, BinarizeError, SourceError, UsageError, without_traceback
from binarize.failures import is_lost_worker
from binarize.layers.layer import BinaryLayer
from binarize.modules.modes import evaluating
from binarize.schemes.recipe import Recipe
from binarize.training.callbacks import Checkpoints, Rows
from binarize.training.data import Augment, Preprocessing, evaluation_loader, training_loader
from binarize.training.data.order import Stand
from binarize.training.data.seeds import seed_of, seeded
from binarize.training.data.tensors import TensorImages
from binarize.training.loop.ending import take_norms_anew
from binarize.training.loop.freezing.masks import Freezer
from binarize.training.loop.objective import Objective
from binarize.training.loop.schedules import Schedules
from binarize.training.loop.stages import Stage, partly_binary, stages_of
from binarize.training.loop.task import COLUMNS, FineTuning
from binarize.training.records.folder import TrainingFolder
from binarize.training.records.metrics import MetricsFile, Row, read_metrics
from binarize.training.records.run import Run
from binarize.training.records.stored_schema import way_out
from binarize.training.result import Ending, remember_training
from binarize.training.trainer import Machine, make_loggers, make_trainer, quiet

__all__ = ["Settings", "fit"]

# Training images from which hardened sums get new centres.
_ENOUGH_TO_CENTRE = 2000
# More processes than this rarely read faster.
_MOST_WORKERS = 4


@dataclass(frozen=True)
class Settings:
    """On what a training runs, and what is said and saved meanwhile."""

    machine: Machine = field(default_factory=Machine)
    # Processes that read images; None: none for images in memory, else a few.
    workers: int | None = None
    # Memory layout of images and weights.
    channels_last: bool = False
    # Beside metrics.csv: tensorboard, wandb, mlflow.
    loggers: tuple[str, ...] = ()
    # Whether to draw a progress bar.
    progress: bool = False
    # A checkpoint so often within an epoch.
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None
    # What to say after an interruption.
    how_to_resume: str = "finetune(..., resume=True) goes on from there"
    # Told the row of each epoch; and after each batch its epoch, its number and how many the epoch has, from 1.
    listen: Callable[[Row], None] | None = None
    tick: Callable[[int, int, int], None] | None = None


def fit(
    run: Run,
    settings: Settings | None = None,
    folder: TrainingFolder | None = None,
    stored: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Train the run's model in place; the rows of the epochs that this process trained.

    With a folder there are checkpoints and metrics.csv in it; with `stored` (of `TrainingFolder.open`) it goes on from its
    checkpoint. The model's report tells of the training. The trained model is not written: `folder.finish` does that.
    """
    settings = settings or Settings()
    loggers = make_loggers(settings.loggers, folder.path if folder is not None else None)
    if folder is not None:
        folder.begin(run.record(), resumed=stored is not None)
    first = 1 if stored is None else int(stored["stage"])
    if first > len(stages_of(run.recipe)):
        raise SourceError(
            f"the training to resume is in stage {first} of {len(stages_of(run.recipe))}\n  {way_out()}"
        )
    file: MetricsFile | None = None
    rows: list[Row] = []
    # Found while the model is whole.
    schedules = Schedules(run.model)
    with _undisturbed(run, settings):
        for stage in stages_of(run.recipe)[first - 1 :]:
            resumed = stored if stage.number == first else None
            with partly_binary(run.model, stage, run.seed) as freezer:
                part = _Part(run, stage, schedules, settings, loggers, folder, resumed, freezer)
                if folder is not None and file is None:
                    file = folder.rows(_columns(run), part.epochs_done())
                rows += part.fit(file)
                ending = part.end()
            # What one stage has frozen, the next goes on with.
            freezes = any(one.freezing is not None for one in stages_of(run.recipe))
            if freezes and stage.number == stage.of and soft_layers(run.model):
                ending = replace(ending, hardened=part.harden())
    training = remember_training(run, ending, rows if file is None else read_metrics(file.path))
    if folder is not None:
        folder.result = training.to_json()
    return rows


@contextmanager
def _undisturbed(run: Run, settings: Settings) -> Iterator[None]:
    """Afterwards modes, devices and the process's generators are as before; of the model only weights and buffers are not."""
    models = [run.model, *(teacher.model for teacher in run.teachers.teachers)]
    with ExitStack() as stack:
        for model in models:
            stack.callback(model.to, next(model.parameters()).device)
            stack.enter_context(evaluating(model))
        if settings.channels_last:
            stack.callback(run.model.to, memory_format=torch.contiguous_format)
            run.model.to(memory_format=torch.channels_last)
        stack.enter_context(seeded(run.seed))
        run.model.train()
        yield


def _columns(run: Run) -> tuple[str, ...]:
    names = (name for name, module in run.model.named_modules() if isinstance(module, BinaryLayer))
    frozen = ("frozen",) if any(stage.freezing for stage in stages_of(run.recipe)) else ()
    sure = ("confident",) if soft_layers(run.model) else ()
    return (*COLUMNS, *frozen, *sure, *(f"flips/{name}" for name in names))


class _Part:
    """One stage of a run."""

    def __init__(
        self,
        run: Run,
        stage: Stage,
        schedules: Schedules,
        settings: Settings,
        loggers: list[Any],
        folder: TrainingFolder | None,
        stored: Mapping[str, Any] | None,
        freezer: Freezer | None,
    ) -> None:
        self.run, self.stage, self.folder, self.stored = run, stage, folder, stored
        path = None if folder is None else folder.checkpoint
        # None for a training that has no checkpoint yet, or none to go on from.
        self.begins_at = path if stored is not None and path is not None and path.is_file() else None
        self.rows = Rows(None, settings.listen, settings.tick)
        self.checkpoints = Checkpoints(
            path,
            minutes=settings.checkpoint_minutes,
            steps=settings.checkpoint_steps,
            how_to_resume=settings.how_to_resume,
        )
        with quiet():
            self.trainer = make_trainer(
                settings.machine,
                stage.recipe,
                [self.rows, self.checkpoints],
                loggers=loggers,
                validate=run.validation is not None,
                progress=settings.progress,
                folder=None if folder is None else folder.path,
            )
        self.batches, self.held = self._loaders(settings)
        self.task = FineTuning(
            run.model,
            Objective(stage.recipe, run.teachers.teachers, loss=run.loss, points=run.points),
            schedules,
            stage,
            batches=len(self.batches),
            seed=run.seed,
            classes=run.classes,
            record=run.record(),
            last_checkpoint="" if self.begins_at is None else str(self.begins_at),
            channels_last=settings.channels_last,
            freezer=freezer,
        )

    def epochs_done(self) -> int:
        """Whole epochs before the point from which this part goes on, those of earlier stages included."""
        earlier = stages_of(self.run.recipe)[: self.stage.number - 1]
        done = 0 if self.stored is None else int(self.stored["step"]) // self.task.steps_per_epoch
        return sum(stage.recipe.epochs for stage in earlier) + done

    def fit(self, file: MetricsFile | None) -> list[Row]:
        """Train; the rows of its epochs."""
        self.rows.file = file
        with quiet(), self.checkpoints.signals:
            try:
                self.trainer.fit(
                    self.task,
                    train_dataloaders=self.batches,
                    val_dataloaders=self.held,
                    ckpt_path=self.begins_at,
                    weights_only=True,
                )
            except REFUSALS as error:
                if self.checkpoints.signals.received is not None and is_lost_worker(error):
                    self.checkpoints.interrupted("in the middle of a step")
                # Putting back a checkpoint of something else: before the first step nothing but it was read.
                if self.begins_at is None or self.task.has_begun:
                    raise
                raise SourceError(
                    f"{self.begins_at}: does not fit this training: {str(error).splitlines()[0] if str(error) else error!r}\n"
                    f"  {way_out()}"
                ) from error
            except SIGTERMException:  # a SystemExit without a code
                self.checkpoints.interrupted("before a step was taken")
            except BinarizeError as error:
                alone = without_traceback(error)
                if alone is error:
                    raise
                raise alone from None
        return self.rows.rows

    def end(self) -> Ending:
        """Give the model the weights that it ends with."""
        recipe, task = self.stage.recipe, self.task
        epoch, is_best = recipe.epochs, False
        if recipe.keep_epoch == "best" and task.best.epoch is not None:
            self.run.model.load_state_dict(task.best.tensors)
            epoch, is_best = task.best.epoch, True
        elif task.average is not None:
            self.run.model.load_state_dict(task.average.model.state_dict())
        images = 0
        if recipe.norm_images and self.stage.number == self.stage.of:
            images = take_norms_anew(
                self.run.model.to(self.trainer.strategy.root_device), self._for_norms(recipe.norm_images)
            )
        return Ending(epoch, is_best, images)

    def harden(self) -> Hardened:
        """Give random signs their likelier values, and new centres where held-out images gain by them."""
        recipe = self.stage.recipe
        self.run.model.to(self.trainer.strategy.root_device)
        images = recipe.norm_images or _ENOUGH_TO_CENTRE
        return harden_trained(
            self.run.model,
            lambda: self._for_norms(images),
            None if self.held is None else lambda: iter(self.held),
        )

    def _for_norms(self, images: int) -> Iterator[Any]:
        """Whole batches with so many training images, the same in every process."""
        run, recipe = self.run, self.stage.recipe
        loader = training_loader(
            run.data,
            run.preprocessing,
            batch_size=recipe.batch_size,
            augment=_augment(recipe, run.preprocessing),
            # The epoch after the last one.
            stand=Stand(seed_of(run.seed, self.stage.number), lambda: (recipe.epochs, 0)),
        )
        for _, batch in zip(range(max(1, round(images / recipe.batch_size))), loader):
            if batch.images is not None:
                yield batch

    def _loaders(self, settings: Settings) -> tuple[Any, Any]:
        """Batches to train on and to validate on, of this process."""
        run, recipe = self.run, self.stage.recipe
        rank, world = self.trainer.global_rank, settings.machine.world
        if recipe.batch_size % world:
            raise UsageError(
                f"a batch of {recipe.batch_size} images cannot be divided among {world} processes"
            )
        batches = training_loader(
            run.data,
            run.preprocessing,
            batch_size=recipe.batch_size // world,
            augment=_augment(recipe, run.preprocessing),
            stand=Stand(seed_of(run.seed, self.stage.number), lambda: self.task.position(), rank, world),
            workers=_workers(run, settings),
        )
        if run.validation is None:
            return batches, None
        held = evaluation_loader(
            run.validation,
            run.preprocessing,
            batch_size=max(1, 2 * recipe.batch_size // world),
            rank=rank,
            world=world,
            workers=_workers(run, settings),
        )
        return batches, held


def _augment(recipe: Recipe, preprocessing: Preprocessing | None) -> Augment | None:
    # Where nothing is preprocessed nothing is augmented either.
    return None if preprocessing is None else Augment.parse(recipe.augment, preprocessing)


def _workers(run: Run, settings: Settings) -> int:
    if settings.workers is not None:
        return settings.workers
    in_memory = isinstance(run.data.dataset, TensorImages) or run.data.ready
    return 0 if in_memory else min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) - 1))
