"""What a training came to, remembered in the report of its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from binarize.bernoulli.hardening import Hardened
from binarize.conversion.conversion import conversion_of, remember
from binarize.inputs.seen import DataUse, Seen
from binarize.report.training import Training
from binarize.training.loop.stages import stages_of
from binarize.training.records.metrics import Row
from binarize.training.records.run import Run

__all__ = ["Ending", "remember_training"]


@dataclass(frozen=True)
class Ending:
    """With which weights a stage ended: of which of its epochs, whether validation chose it, and norms of how many images."""

    epoch: int
    is_best: bool
    norm_images: int = 0
    # What hardening made of random signs, where there were any.
    hardened: Hardened | None = None


def remember_training(run: Run, ending: Ending, rows: Sequence[Row]) -> Training:
    """Put the training into the report of the run's model, in place of an earlier one; `rows` are those of all its epochs."""
    stages = stages_of(run.recipe)
    last = [row for row in rows if row.get("stage") == stages[-1].number]
    chosen = next((row for row in last if row.get("epoch") == ending.epoch), {})
    before = sum(stage.recipe.epochs for stage in stages[:-1])
    training = Training(
        data=run.data.name,
        images=len(run.data),
        epochs=before + stages[-1].recipe.epochs,
        epoch=before + ending.epoch,
        chosen="validation" if ending.is_best else "last",
        val_top1=_number(chosen.get("val_top1")),
        val_loss=_number(chosen.get("val_loss")),
        average=stages[-1].recipe.ema,
        norm_images=ending.norm_images,
        teacher=str(run.teachers),
        seed=run.seed,
        seconds=sum(float(row.get("seconds") or 0.0) for row in rows),
        recipe=run.recipe.to_json(),
        validation=None if run.validation is None else run.validation.name,
        validation_images=0 if run.validation is None else len(run.validation),
        hardened=None if ending.hardened is None else ending.hardened.words,
    )
    conversion = conversion_of(run.model)
    if conversion is not None:
        # What was measured of the model before says nothing of the one that was trained.
        report = replace(conversion.report, training=training, agreement=None)
        remember(run.model, replace(conversion, report=report, seen=_seen(conversion.seen, run)))
    return training


def _seen(before: Seen, run: Run) -> Seen:
    """What the model has seen now."""
    use = DataUse(
        "finetune", run.data.name, len(run.data), by_name=run.data.by_name, root=str(run.options.root)
    )
    named = run.data.classes if len(run.data.classes) == run.classes else ()
    return before.showing(run.preprocessing, "finetune").using(use).naming(named)


def _number(value: float | int | str | None) -> float | None:
    return None if value is None or isinstance(value, str) else float(value)
