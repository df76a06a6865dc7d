"""`binarize.evaluate`: accuracy of a model, with its float model beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.conversion.conversion import conversion_of
from binarize.errors import UsageError
from binarize.layers.layer import BinaryLayer
from binarize.modules.float_check import bare
from binarize.modules.modes import evaluating
from binarize.modules.outputs import class_dim
from binarize.training.data import (
    Batch,
    ImageData,
    Preprocessing,
    evaluation_loader,
    open_data,
    preprocessing_of,
)
from binarize.training.data.image_data import limited
from binarize.training.data.opened import needs_preprocessing, opening
from binarize.training.data.samples import count
from binarize.training.data.seeds import seeded
from binarize.training.evaluation.classes import to_outputs
from binarize.training.evaluation.correlation import Correlation
from binarize.training.evaluation.scores import Evaluation
from binarize.training.evaluation.tally import Tally
from binarize.training.prepare import known_classes, outputs_or_none
from binarize.training.teachers.find import find_teachers
from binarize.training.teachers.teacher import Taps, Teacher

__all__ = ["evaluate"]


def evaluate(
    model: nn.Module,
    data: object,
    float_model: nn.Module | str | None = None,
    *,
    split: str = "validation",
    batch_size: int = 256,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    root: str | Path = "data",
    download: bool = False,
    device: str | torch.device | None = None,
    workers: int = 0,
    correlation: bool = True,
) -> Evaluation:
    """Accuracy, per class and as a whole, in evaluation mode and the model's own precision; the model stays as it is.

    `data`         as for `finetune`; of named data the held-out part, or the "train" split
    `float_model`  for comparison: the float model, or "source" for the one that was converted
    `limit`        so many images alone, drawn at random and always the same
    `correlation`  whether the outputs of binary layers are compared with those of the float model's

    Raises: UsageError where the data does not fit the model.

    Example:
        >>> binarize.evaluate(bnn, "digits", float_model).agreement     # doctest: +SKIP
    """
    model = bare(model)
    if preprocessing is None and needs_preprocessing(data):
        preprocessing = preprocessing_of(model)
    found, split = _open(model, data, split, preprocessing, root, download)
    found = limited(found, limit)
    teachers = find_teachers(model, float_model, preprocessing).teachers
    reference = teachers[0] if teachers else None
    if not found.labelled and reference is None:
        raise UsageError(
            f"data {found.name}: its images have no labels, and there is no float model to compare with: nothing to measure\n"
            "  put them into class folders, as in cat/1.jpg, or name the float model"
        )
    names = [name for name, module in model.named_modules() if isinstance(module, BinaryLayer)]
    similar = Correlation(names if reference is not None and correlation else ())
    pass_ = _Pass(model, reference, found.classes, similar)
    own = next((p.device for p in model.parameters()), torch.device("cpu"))
    with ExitStack() as stack:
        for module in [model, *([reference.model] if reference is not None else [])]:
            stack.callback(module.to, next((p.device for p in module.parameters()), own))
            stack.enter_context(evaluating(module))
            module.to(device or own)
        if reference is not None:
            reference.to(device or own)
        stack.enter_context(torch.no_grad())
        # A loader draws from the process's generator even where nothing in it is random.
        stack.enter_context(seeded(0))
        for batch in evaluation_loader(found, preprocessing, batch_size=batch_size, workers=workers):
            pass_.add(batch if isinstance(batch, Batch) else Batch.of(batch), torch.device(device or own))
    return replace(
        pass_.result(found.name, split, _costs(model)), notes=found.notes, binary=is_binary_model(model)
    )


def is_binary_model(model: nn.Module) -> bool:
    """Whether anything in it is binary."""
    return conversion_of(model) is not None or any(isinstance(m, BinaryLayer) for m in model.modules())


def _open(
    model: nn.Module,
    data: object,
    split: str,
    preprocessing: Preprocessing | None,
    root: str | Path,
    download: bool,
) -> tuple[ImageData, str]:
    """(the images, the split that they are)."""
    asked, options = split, opening(model, data, preprocessing, root, download)
    options["labelled"] = False
    found = open_data(data, split, **options)
    if found is None:
        # Data that is not divided is all there is to look at.
        split = "train" if asked == "validation" else "validation"
        found = open_data(data, split, **options)
    if found is None:
        raise UsageError(f"data {data}: holds no {asked} images")
    return to_outputs(found, lambda: outputs_or_none(model, options["size"]), known_classes(model)), split


class _Pass:
    """One pass over the data with one or two models."""

    def __init__(
        self, model: nn.Module, reference: Teacher | None, classes: Sequence[str], similar: Correlation
    ) -> None:
        self.model, self.reference, self.similar = model, reference, similar
        self.ours, self.theirs = Tally(classes), Tally(classes)
        self.images = self.same = self.compared = 0
        self.unreadable: list[str] = []

    def add(self, batch: Batch, device: torch.device) -> None:
        self.unreadable += batch.unreadable
        if batch.images is None:
            return
        images, labels = pytree.tree_map_only(Tensor, lambda t: t.to(device), (batch.images, batch.labels))
        self.images += count(images)
        with Taps(self.model, self.similar.names) as ours:
            output = self.ours.run(self.model, images, labels)
            if self.reference is None:
                return
            with Taps(self.reference.model, self.similar.names) as theirs:
                wanted = self.theirs.run(self.reference, images, labels)
                self.similar.add(ours, theirs)
        if output is not None and wanted is not None and output.shape == wanted.shape:
            equal = output.argmax(class_dim(output)) == wanted.argmax(class_dim(wanted))
            self.same, self.compared = self.same + int(equal.sum()), self.compared + equal.numel()

    def result(self, name: str, split: str, costs: dict[str, Any]) -> Evaluation:
        if not self.images:
            raise UsageError(
                f"data {name}: none of its {len(self.unreadable)} images can be read: {self.unreadable[0]}"
            )
        return Evaluation(
            data=name,
            split=split,
            images=self.images,
            model=self.ours.scores(),
            reference=self.theirs.scores() if self.reference is not None else None,
            agreement=self.same / self.compared if self.compared else None,
            correlation=self.similar.values(),
            unreadable=tuple(self.unreadable),
            costs=costs,
        )


def _costs(model: nn.Module) -> dict[str, Any]:
    conversion = conversion_of(model)
    return {} if conversion is None else asdict(conversion.report.totals)
