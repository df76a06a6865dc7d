"""From what a user names to what a training needs: data, preprocessing, recipe, teachers, tried on one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from binarize.bernoulli.hardening import is_hardened
from binarize.checkpoint.record import has_record
from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError
from binarize.modules.modes import evaluating
from binarize.modules.outputs import class_dim, logits_of
from binarize.modules.tensors import tensor_digest, unique_tensors
from binarize.schemes.recipe import Recipe
from binarize.training.data import (
    Batch,
    ImageData,
    Preprocessing,
    evaluation_loader,
    open_data,
    preprocessing_of,
)
from binarize.training.data.image_data import divided, limited, numbered
from binarize.training.data.kinds.folders import FolderImages
from binarize.training.data.opened import needs_preprocessing, opening, output_classes
from binarize.training.data.seeds import seeded
from binarize.training.evaluation.classes import to_outputs
from binarize.training.loop.objective import LabelLoss, check_labels
from binarize.training.recipe import RESUMED, differs
from binarize.training.records.run import DataOptions, Run
from binarize.training.teachers.find import TeacherName, find_teachers
from binarize.trust import check_teacher

__all__ = ["known_classes", "outputs_or_none", "prepare"]


# Share of the training images to choose by, where only a test set stands beside them.
_HELD_OUT = 0.1


def prepare(
    model: nn.Module,
    data: object,
    recipe: Recipe,
    *,
    teacher: TeacherName | Sequence[TeacherName] | None = None,
    options: DataOptions | None = None,
    seed: int = 0,
    loss: LabelLoss | None = None,
    points: Sequence[str] | None = None,
    stored: Mapping[str, Any] | None = None,
    fetch: bool | None = None,
) -> Run:
    """Open the data, find the teachers and try one batch, before anything long begins.

    `fetch` says whether published weights of teachers may be downloaded; None: those that `teacher` names.

    Raises: UsageError where the data does not fit the model, or a resumed training had other data, seed or teachers.
    """
    if is_hardened(model):
        raise UsageError(
            "the signs of the model are hardened for good: nothing of them can be trained\n"
            "  convert the float model again, or train the folder that was saved before"
        )
    options = options or DataOptions()
    preprocessing = options.preprocessing
    if preprocessing is None and needs_preprocessing(data):
        preprocessing = preprocessing_of(model)
    train, held = _open(model, data, preprocessing, options, seed)
    if fetch is None:
        fetch = teacher is not None or options.download
    if teacher is None:
        teacher = recipe.teacher if stored is None else _stored_teachers(stored["record"], recipe.teacher)
    names = _names(teacher)
    teachers = find_teachers(model, teacher, preprocessing, fetch=fetch)
    # A loader draws a seed for its workers even where it has none.
    with seeded(seed):
        classes = _try(model, train, preprocessing, loss)
    chosen = None if points is None else tuple(points)
    run = Run(
        model,
        recipe,
        teachers,
        train,
        held,
        preprocessing,
        seed,
        classes,
        loss,
        chosen,
        options,
        names,
        tensor_digest(unique_tensors(model)),
    )
    if stored is not None:
        before, now = stored["record"], run.record()
        for key in ("data", "images", "seed", "teacher", "preprocessing"):
            if _told(before[key]) != _told(now[key]):
                raise UsageError(differs(key, before[key], now[key]))
    return run


def _told(value: object) -> Any:
    """A value of the record without what is there for people alone."""
    return {**value, "origin": None} if isinstance(value, dict) else value


def _stored_teachers(record: Mapping[str, Any], usual: str) -> TeacherName | Sequence[TeacherName]:
    """The teachers that a training to resume says it had. Raises: UntrustedSourceError for what a file may not name."""
    found = record.get("teachers")
    if found is None or found == [usual]:
        # The recipe's, which was looked at already, or is said again.
        return usual
    if not isinstance(found, (list, tuple)):
        found = [found]
    # A saved folder on this disk is read by the same boundary.
    return [one if _is_folder(one) else check_teacher(one, RESUMED) for one in found]


def _is_folder(name: object) -> bool:
    return isinstance(name, str) and "\0" not in name and has_record(Path(name))


def _names(teacher: TeacherName | Sequence[TeacherName]) -> tuple[str, ...] | None:
    """The names of teachers; None where one is given as a module."""
    asked = [teacher] if isinstance(teacher, (str, Path, nn.Module)) else list(teacher)
    if any(isinstance(one, nn.Module) for one in asked):
        return None
    return tuple(str(one) for one in asked)


def _open(
    model: nn.Module, data: object, preprocessing: Preprocessing | None, options: DataOptions, seed: int
) -> tuple[ImageData, ImageData | None]:
    common = opening(model, data, preprocessing, options.root, options.download)
    size = common["size"]
    found = open_data(data, **common)
    if found is None:
        raise UsageError(f"data {data}: holds no training images; expected a folder train beside the others")
    # Other data than folders may call its classes otherwise.
    names = found.classes if isinstance(found.dataset, FolderImages) else ()

    def named(data: ImageData) -> ImageData:
        return to_outputs(data, lambda: outputs_or_none(model, size), known_classes(model))

    found = named(found)
    found = limited(found, options.limit, seed)
    validation = options.validation
    if validation is False:
        return found, None
    if isinstance(validation, float):
        return divided(found, validation, seed)
    if validation is None:
        other = open_data(data, "validation", **common)
        other = other if other is None else named(numbered(other, names))
        return _chosen_by(found, seed) if other is not None and other.is_test else (found, other)
    other = open_data(validation, "validation", **common) or open_data(validation, **common)
    return found, other if other is None else named(numbered(other, names))


def _chosen_by(found: ImageData, seed: int) -> tuple[ImageData, ImageData | None]:
    """Training images and a share of them to choose by, where all that belongs to them is a test set."""
    if not 0 < round(_HELD_OUT * len(found)) < len(found):
        return found, None
    train, held = divided(found, _HELD_OUT, seed)
    note = (
        f"{found.name}: {len(held):,} of the {len(found):,} training images are held out to choose the best epoch by; "
        "its test images are left to `binarize eval`"
    )
    return replace(train, notes=(*train.notes, note)), replace(held, notes=())


def known_classes(model: nn.Module) -> tuple[str, ...]:
    """The names of its outputs that a converted model remembers."""
    conversion = conversion_of(model)
    return () if conversion is None else conversion.seen.classes


def outputs_or_none(model: nn.Module, size: Sequence[int]) -> int | None:
    """How many classes the model tells apart; None where it gives no class scores, or does not take images of this size."""
    try:
        return output_classes(model, size)
    except (UsageError, RuntimeError, TypeError, ValueError):
        return None


@torch.no_grad()
def _try(
    model: nn.Module, data: ImageData, preprocessing: Preprocessing | None, loss: LabelLoss | None
) -> int | None:
    """How many classes the model tells apart, from one small batch; None where its output is no class scores."""
    if isinstance(data.dataset, DataLoader):
        return None  # the user's own; it may not be meant to be begun twice
    first = next(iter(evaluation_loader(data, preprocessing, batch_size=2)))
    batch = first if isinstance(first, Batch) else Batch.of(first)
    if batch.images is None:
        return None
    parameter = next(model.parameters())
    images = pytree.tree_map_only(Tensor, lambda t: t.to(parameter.device), batch.images)
    shapes = [tuple(t.shape) for t in pytree.tree_leaves(images) if isinstance(t, Tensor)]
    try:
        with evaluating(model):
            output = model(images)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"data {data.name}: the model does not take images of shape {shapes}: {error}"
        ) from error
    try:
        logits = logits_of(output)
    except UsageError:
        return None
    if logits.dim() < 2:
        return None
    if batch.labels is not None and loss is None:
        check_labels(batch.labels, logits, data.classes)
    return int(logits.shape[class_dim(logits)])
