"""`binarize.finetune`: train a binary model by the recipe of its scheme, with the float model as its teacher.

What it writes to the folder `out`:
    checkpoints/last.ckpt   the state of the training, after each epoch, every few minutes, and when it is interrupted
    metrics.csv             one row an epoch
    finetune.json           what was trained with what
    and, when it is done, the trained model as `binarize.save` writes it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from binarize.checkpoint.load import load
from binarize.errors import UsageError
from binarize.modules.float_check import bare
from binarize.training.data import Preprocessing
from binarize.training.loop.objective import LabelLoss
from binarize.training.prepare import prepare
from binarize.training.recipe import chosen_recipe, one_stage
from binarize.training.records.folder import TrainingFolder
from binarize.training.records.run import DataOptions
from binarize.training.starts import draw_latent_weights, start_thresholds
from binarize.training.teachers.find import TeacherName

__all__ = ["finetune", "fit_module"]


def finetune(
    model: nn.Module | str | Path,
    data: object,
    *,
    validation: object = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    teacher: TeacherName | Sequence[TeacherName] | None = None,
    recipe: Mapping[str, Any] | str | Path | None = None,
    two_stage: bool = False,
    stage: str | None = None,
    loss: LabelLoss | None = None,
    points: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32",
    workers: int | None = None,
    channels_last: bool = False,
    loggers: Sequence[str] = (),
    progress: bool = False,
) -> nn.Module:
    """Train a model in place and give it back; nothing of it but its weights and buffers changes.

    `model`         a converted model, or the folder of one (`out` is then that folder unless given)
    `data`          "digits", "idx:PATH", "torch/cifar10", a folder, a Dataset, a DataLoader or (images, labels)
    `validation`    the same, or a share of `data` such as 0.1; None: what belongs to the data, and where that is a test
                    set a tenth of `data`; False: none
    `teacher`       "source" (the float model), "none", a model, "timm:NAME", a folder, or several; None: the recipe's
    `recipe`        "paper" (the authors' own), a YAML file or a mapping; over the scheme's, and below what is given here
    `two_stage`     half of the epochs with binary inputs alone, then everything binary
    `stage`         "full", "layerwise", "progressive": become binary that way meanwhile, and random signs hard at the end
    `loss`          (output, labels) -> loss, in place of the recipe's
    `points`        names of modules to compare with the teacher's, where the recipe matches features
    `preprocessing` in place of what the model's configuration says
    `limit`         so many images of `data` alone, drawn with `seed`
    `out`           folder for checkpoints, metrics.csv and the trained model; None: nothing is written
    `resume`        go on with the training that `out` holds; `force` begins anew instead
    `devices`       processes on each of `nodes`; under torchrun it says both
    `precision`     "32", "bf16" or "16"
    `loggers`       beside metrics.csv: "tensorboard", "wandb", "mlflow"

    Raises: StoppedError where a signal asked for an end, CheckError where numbers became NaN, UsageError, RuleError.

    Example:
        >>> bnn = binarize.convert(float_model, example_input=images)               # doctest: +SKIP
        >>> binarize.finetune(bnn, data="torch/cifar10", epochs=5, out="net")       # doctest: +SKIP
    """
    fit = fit_module()
    if isinstance(model, (str, Path)):
        out = model if out is None else out
        model = load(model)
    if resume and out is None:
        raise UsageError("resume: say which folder holds the training (out=...)")
    folder = None if out is None else TrainingFolder(out)
    stored = None if folder is None else folder.open(resume, force)
    changes = {"epochs": epochs, "lr": lr, "batch_size": batch_size}
    run = prepare(
        bare(model),
        data,
        chosen_recipe(
            model, recipe, changes, stage=one_stage(two_stage, stage), teacher=teacher, stored=stored
        ),
        teacher=teacher,
        options=DataOptions(validation, limit, preprocessing=preprocessing),
        seed=seed,
        loss=loss,
        points=points,
        stored=stored,
    )
    # A training that is resumed finds the same; its tensors are then those of the checkpoint.
    draw_latent_weights(run)
    start_thresholds(run)
    settings = fit.Settings(
        machine=fit.Machine.here(device, devices, nodes, precision),
        workers=workers,
        channels_last=channels_last,
        loggers=tuple(loggers),
        progress=progress,
    )
    fit.fit(run, settings, folder, stored)
    if folder is not None:
        folder.finish(bare(model), run.record())
    return model


def fit_module() -> Any:
    """The module that needs pytorch-lightning, imported only when it is used.

    Raises: UsageError where that is missing, with the line that installs it.
    """
    try:
        from binarize.training import fit
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("pytorch_lightning", "torchmetrics"):
            raise
        raise UsageError(
            "training needs pytorch-lightning and torchmetrics: pip install 'pytorch-lightning>=2.6.4' torchmetrics"
        ) from error
    return fit
