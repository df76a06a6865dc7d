"""The LightningModule: one stage of a training, from recipe, objective, schedules and flips."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from binarize.bernoulli.hardening import confident_share, soft_layers
from binarize.errors import CheckError
from binarize.modules.outputs import class_dim, logits_of
from binarize.training.data import Batch
from binarize.training.data.samples import count
from binarize.training.data.seeds import seed_all
from binarize.training.loop.ending import Average, Best
from binarize.training.loop.flips import Flips
from binarize.training.loop.freezing.masks import Freezer
from binarize.training.loop.nonfinite import (
    broken_gradient,
    broken_output,
    broken_parameter,
    finite_gradients,
)
from binarize.training.loop.objective import IGNORED, Losses, Objective, check_labels, label_loss
from binarize.training.loop.optimizers import make_optimizer, make_rates
from binarize.training.loop.schedules import Schedules
from binarize.training.loop.stages import Stage

__all__ = ["COLUMNS", "FineTuning"]

# Of metrics.csv, before one `flips/<layer>` for each layer with binary weights.
COLUMNS = (
    "stage", "epoch", "step", "lr", "loss", "label_loss", "teacher_loss", "match_loss", "regularizer", "val_loss", "val_top1",
    "flips", "unreadable", "seconds",
)  # fmt: skip


class FineTuning(lightning.LightningModule):
    """One stage of training a model.

    What is random in a step follows from the seed and the step's number, so a resumed stage needs no saved generator. A loss
    or gradient that is not finite stops the training before the step spoils the weights.
    """

    objective: Objective
    average: Average | None
    freezer: Freezer | None

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        schedules: Schedules,
        stage: Stage,
        *,
        batches: int,
        seed: int = 0,
        classes: int | None = None,
        record: Mapping[str, Any] | None = None,
        last_checkpoint: str = "",
        channels_last: bool = False,
        freezer: Freezer | None = None,
    ) -> None:
        super().__init__()
        self.__dict__["freezer"] = freezer
        self.model, self.stage, self.seed = model, stage, seed
        # Teachers are no part of this module: neither of its state nor of what processes exchange.
        self.__dict__["objective"] = objective
        self.record, self.last_checkpoint = dict(record or {}), last_checkpoint
        self.channels_last = channels_last
        self.batches = batches
        self.steps_per_epoch = -(-batches // stage.recipe.accumulate)
        self.steps = self.steps_per_epoch * stage.recipe.epochs
        self.schedules, self.flips = schedules, Flips(model)
        self.val_loss, self.val_top1 = MeanMetric(), MeanMetric()
        self._mixup = _mixup(stage, classes)
        # No part of this module either: processes do not exchange it.
        self.__dict__["average"] = Average(model, stage.recipe.ema) if stage.recipe.ema else None
        self.best = Best()
        self._sums: dict[str, float] = {}
        # Of the last step.
        self._rate = 0.0
        self._started = time.monotonic()
        self._labels_checked = False
        # Whether a step was begun: until then a checkpoint is read and put back.
        self.has_begun = False
        # Images that could not be read, with the reason, in the order they were met.
        self.unreadable: dict[str, None] = {}

    @property
    def judged(self) -> nn.Module:
        """The model that validation looks at: the moving average of the weights, where there is one."""
        return self.model if self.average is None else self.average.model

    def position(self) -> tuple[int, int]:
        """(epoch, batches of it that are done), for a loader that begins to iterate."""
        epoch, steps = divmod(self.trainer.global_step, self.steps_per_epoch)
        return epoch, steps * self.stage.recipe.accumulate

    # --- what the trainer calls

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(
            self.model, self.stage.recipe, images=self.batches * self.stage.recipe.batch_size
        )
        if self.freezer is not None:
            self.freezer.hold(optimizer)
        rates = make_rates(optimizer, self.stage.recipe, self.steps, self.steps_per_epoch)
        if (average := self.average) is not None:
            # After the hook that clips weights, and before anything is saved.
            optimizer.register_step_post_hook(
                lambda *_: average.update(self.model, self.trainer.global_step + 1)
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: object) -> None:
        scheduler.step_update(self.trainer.global_step)

    def on_fit_start(self) -> None:
        self.objective.to(self.device)
        if self.average is not None:
            self.average.model.to(self.device)

    def on_train_start(self) -> None:
        self._started = time.monotonic()

    def on_train_epoch_start(self) -> None:
        if self.freezer is not None:
            self.freezer.begin_epoch(self.trainer.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.has_begun = True
        # Each process draws its own noise; with one process the rank adds nothing.
        seed_all(self.seed, self.stage.number, batch_idx, self.trainer.global_step, self.global_rank)
        self.objective.done = self.trainer.global_step / self.steps
        self.schedules.set(self.objective.done)
        # Of the batches that make one step, the first.
        if batch_idx % self.stage.recipe.accumulate == 0:
            self.schedules.look(new_epoch=self.trainer.global_step % self.steps_per_epoch == 0)
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = self._laid_out(batch.images), batch.labels
        self._add({"unreadable": len(batch.unreadable)})
        self.unreadable.update(dict.fromkeys(batch.unreadable))
        if self._mixup is not None and labels is not None and len(images) % 2 == 0:
            images, labels = self._mixup(images.clone(), labels)
        losses, output = self.objective(self.model, images, labels)
        if not self._labels_checked and self.objective.loss is None and labels is not None:
            self._labels_checked = True
            check_labels(labels, logits_of(output))
        if not bool(torch.isfinite(losses.total)):
            self._stop_at_loss(losses.total, images)
        self._add_losses(losses, count(images))
        # It takes a seventh of what a step costs beside the model, and only a progress bar reads it.
        if self.trainer.progress_bar_callback is not None:
            self.log("loss", losses.total.detach(), prog_bar=True, logger=False, rank_zero_only=True)
        return losses.total

    def on_before_optimizer_step(self, optimizer: object) -> None:
        # A scaler of float16 meets infinite gradients on purpose, and leaves out such steps.
        if str(self.trainer.precision) == "16-mixed" or finite_gradients(self.model):
            return
        name = broken_gradient(self.model)
        raise CheckError(self._stopped(f"the gradient of {name} is not finite"))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = _parts(batch)
        if images is None or labels is None:
            return
        output = self.judged(self._laid_out(images))
        size = count(images)
        if self.objective.loss is not None:
            self.val_loss.update(self.objective.loss(output, labels).float(), weight=size)
            return
        logits = logits_of(output)
        check_labels(labels, logits)
        self.val_loss.update(label_loss(logits, labels, self.stage.recipe), weight=size)
        right = logits.argmax(class_dim(logits)) == labels
        counted = labels != IGNORED if labels.dim() == 3 else torch.ones_like(labels, dtype=torch.bool)
        self.val_top1.update(right[counted].float().mean(), weight=size)

    def _laid_out(self, images: object) -> Any:
        if self.channels_last and isinstance(images, Tensor) and images.dim() == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    # --- an epoch's row

    def _add(self, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def _add_losses(self, losses: Losses, size: int) -> None:
        named = zip(("loss", "label_loss", "teacher_loss", "match_loss", "regularizer"), losses)
        self._add({name: float(value.detach()) * size for name, value in named if value is not None})
        self._add({"images": size})

    def epoch_row(self) -> dict[str, float | int | None]:
        """The row of metrics.csv for the epoch that ends now; begins the next one."""
        sums, self._sums = self._of_all_processes(self._sums), {}
        images = max(sums.get("images", 0.0), 1.0)
        row: dict[str, float | int | None] = {
            name: sums[name] / images
            for name in ("loss", "label_loss", "teacher_loss", "match_loss", "regularizer")
            if name in sums
        }
        flips = self.flips.count()
        if self.freezer is not None:
            row["frozen"] = self.freezer.share()
        if soft_layers(self.model):
            row["confident"] = confident_share(self.model)
        row |= {
            "stage": self.stage.number,
            "epoch": self.trainer.current_epoch + 1,
            "step": self.trainer.global_step,
        }
        row |= {"lr": self._rate, "unreadable": int(sums.get("unreadable", 0))}
        row |= {"seconds": sums.get("seconds", 0.0) + self._elapsed()}
        if flips:
            row["flips"] = sum(flips.values()) / len(flips)
        for name, metric in (("val_loss", self.val_loss), ("val_top1", self.val_top1)):
            if metric.update_called:
                row[name] = float(metric.compute())
            metric.reset()
        # What is partly binary is no model to end with.
        if self.stage.number == self.stage.of and self.stage.recipe.keep_epoch == "best":
            self.best.look(self.judged, self.trainer.current_epoch + 1, row)
        return row | {f"flips/{name}": share for name, share in flips.items()}

    def _of_all_processes(self, sums: Mapping[str, float]) -> dict[str, float]:
        if self.trainer.world_size == 1:
            return dict(sums)
        # Every process has the same keys: they follow from the recipe. Seconds are those of the main one.
        names = sorted(name for name in sums if name != "seconds")
        values = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=self.device)
        total = self.trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(total, Tensor)
        return {**sums, **dict(zip(names, total.tolist()))}

    def _elapsed(self) -> float:
        now = time.monotonic()
        elapsed, self._started = now - self._started, now
        return elapsed

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._add({"seconds": self._elapsed()})
        checkpoint["binarize"] = {
            "stage": self.stage.number,
            "record": self.record,
            "sums": dict(self._sums),
            "flips": self.flips.state_dict(),
            "best": self.best.state_dict(),
        }
        if self.freezer is not None:
            checkpoint["binarize"]["frozen_steps"] = self.freezer.step
        if self.average is not None:
            checkpoint["binarize"]["average"] = self.average.model.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["binarize"]
        self._sums = dict(state["sums"])
        self.flips.load_state_dict(state["flips"])
        self.best.load_state_dict(state["best"])
        if self.freezer is not None:
            self.freezer.resume(int(state.get("frozen_steps", 0)))
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])

    # --- numbers that are not finite

    def _stop_at_loss(self, loss: Tensor, images: object) -> None:
        place = broken_parameter(self.model)
        if place is not None:
            raise CheckError(self._stopped(f"the loss is {loss.item()}: {place} is not finite"))
        with torch.no_grad():
            place = broken_output(self.model, images)
        where = (
            f"first in layer {place}"
            if place is not None
            else "the model's output is finite, so it is the loss itself"
        )
        raise CheckError(self._stopped(f"the loss is {loss.item()}: {where}"))

    def _stopped(self, what: str) -> str:
        step = self.trainer.global_step + 1
        kept = f"\n  the last good checkpoint is {self.last_checkpoint}" if self.last_checkpoint else ""
        epoch = self.trainer.current_epoch + 1
        return (
            f"training stopped at step {step} (epoch {epoch}, learning rate {self._rate:.3g}): {what}{kept}"
            "\n  ways out: --resume with precision 32, or a new training (--force, or another folder) with a lower lr, "
            "a longer warmup or clip_gradients"
        )


def _parts(batch: object) -> tuple[Any, Any]:
    found = batch if isinstance(batch, Batch) else Batch.of(batch)
    return found.images, found.labels


def _mixup(stage: Stage, classes: int | None) -> Any:
    recipe = stage.recipe
    if not (recipe.mixup or recipe.cutmix):
        return None
    from timm.data import Mixup

    # Label smoothing is the loss's.
    return Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.0, num_classes=classes)
