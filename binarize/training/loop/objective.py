"""The loss of one step: the labels' share, the teacher's share, features on the way, latent weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.errors import UsageError
from binarize.modules.outputs import class_dim, logits_of
from binarize.schemes.recipe import Recipe
from binarize.training.loop.regularizers import regularization
from binarize.training.teachers.distances import attention, divergence, features, tree_distance
from binarize.training.teachers.teacher import Taps, Teacher, block_ends

__all__ = ["IGNORED", "LabelLoss", "Losses", "Objective", "check_labels", "label_loss"]

# (output of the model, labels) -> loss
LabelLoss = Callable[[Any, Any], Tensor]
# Pixels of segmentation data sets that belong to no class.
IGNORED = 255


def label_loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Cross entropy or squared hinge of class scores; labels are class numbers, or shares of classes of the scores' shape.

    Shapes: logits (N, C, ...) with labels (N, ...), or (N, tokens, C) with (N, tokens).
    """
    scores = logits.float().movedim(class_dim(logits), 1)
    if recipe.loss == "square_hinge":
        return _square_hinge(scores, labels)
    if labels.is_floating_point():
        return F.cross_entropy(
            scores, labels.movedim(class_dim(labels), 1), label_smoothing=recipe.label_smoothing
        )
    ignored = IGNORED if labels.dim() == 3 else -100
    return F.cross_entropy(scores, labels, label_smoothing=recipe.label_smoothing, ignore_index=ignored)


def _square_hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """mean max(0, 1 - t y)^2 with t = +1 for the class of the label and -1 for the others."""
    if not labels.is_floating_point():
        labels = F.one_hot(labels, scores.shape[1]).movedim(-1, 1).to(scores.dtype)
    return (1 - (2 * labels - 1) * scores).clamp_min(0).square().mean()


def check_labels(labels: object, logits: Tensor, names: Sequence[str] = ()) -> None:
    """Check labels (N, ...) against logits (N, C, ...) or (N, tokens, C).

    Raises: UsageError, where the shapes differ or a label is no class of this model.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or not labels.numel():
        return
    classes = logits.shape[class_dim(logits)]
    expected = logits.shape[:1] + logits.movedim(class_dim(logits), 1).shape[2:]
    if labels.shape != expected:
        raise UsageError(
            f"labels have the shape {tuple(labels.shape)}, "
            f"where the model's scores {tuple(logits.shape)} need {tuple(expected)}"
        )
    counted = labels[labels != IGNORED] if labels.dim() == 3 else labels
    highest = max(int(counted.max()) + 1 if counted.numel() else 0, len(names))
    if highest > classes or (counted.numel() and int(counted.min()) < 0):
        raise UsageError(
            f"the data has {highest} classes and the model {classes} outputs; "
            "convert the float model with --num-classes, or give data of its classes"
        )


class Losses(NamedTuple):
    """The loss of a step, and what it is made of; None for what the recipe leaves out."""

    total: Tensor
    label: Tensor | None = None
    teacher: Tensor | None = None
    match: Tensor | None = None
    regularizer: Tensor | None = None


class Objective:
    """The loss that a recipe describes.

        total = (1 - s) label + s teacher + match_weight match + regularizer_weight regularizer,   s = teacher_weight

    Without labels it is the teacher's alone, over any output tree; without a teacher the labels' alone.

    Example:
        >>> objective = Objective(recipe, [Teacher(float_model)])         # doctest: +SKIP
        >>> losses, output = objective(model, images, labels)             # doctest: +SKIP
    """

    # Share of the stage's steps that are done, which a factor may grow with.
    done = 1.0

    def __init__(
        self,
        recipe: Recipe,
        teachers: Sequence[Teacher] = (),
        *,
        loss: LabelLoss | None = None,
        points: Sequence[str] | None = None,
    ) -> None:
        if recipe.match != "none" and not teachers:
            raise UsageError(f"match: {recipe.match} compares with a teacher, and there is none")
        self.recipe, self.teachers, self.loss = recipe, tuple(teachers), loss
        self._points = None if points is None else tuple(points)

    def points(self, model: nn.Module) -> tuple[str, ...]:
        """The modules whose outputs are compared with the teacher's."""
        if self.recipe.match == "none":
            return ()
        if self._points is None:
            self._points = block_ends(model)
        if not self._points:
            raise UsageError(
                "the model has no blocks or pools to compare features at; name modules (points=[...])"
            )
        return self._points

    def to(self, device: torch.device) -> Objective:
        """Move the teachers."""
        for teacher in self.teachers:
            teacher.to(device)
        return self

    def __call__(self, model: nn.Module, images: object, labels: object = None) -> tuple[Losses, Any]:
        """(losses, output of the model).

        Raises: UsageError, where there is nothing to learn from, or labels are no classes of the model.
        """
        if labels is None and not self.teachers:
            raise UsageError("the data has no labels and there is no teacher: nothing to learn from")
        points = self.points(model)
        with ExitStack() as stack:
            ours = stack.enter_context(Taps(model, points))
            output = model(images)
            wanted, matched = self._taught(images, points, ours)
            return self._losses(model, output, labels, wanted, matched), output

    def _taught(self, images: object, points: tuple[str, ...], ours: Taps) -> tuple[list[Any], Tensor | None]:
        """(outputs of the teachers, distance of the first teacher's features)."""
        if not self.teachers:
            return [], None
        first, *others = self.teachers
        with Taps(first.model, points) as theirs:
            wanted = [first(images)]
            distance = attention if self.recipe.match == "attention" else features
            distances = [distance(ours[point], theirs[point]) for point in points]
        wanted += [teacher(images) for teacher in others]
        return wanted, torch.stack(distances).mean() if distances else None

    def _losses(
        self, model: nn.Module, output: object, labels: object, wanted: list[Any], matched: Tensor | None
    ) -> Losses:
        recipe = self.recipe
        label = None if labels is None else self._label(output, labels)
        teacher = (
            torch.stack([self._distance(output, one, labels) for one in wanted]).mean() if wanted else None
        )
        if label is None:
            assert teacher is not None
            total = teacher
        else:
            total = label if teacher is None else torch.lerp(label, teacher, recipe.teacher_weight)
        if matched is not None:
            total = total + recipe.match_weight * matched
        regular = None
        if recipe.regularizer != "none":
            regular = regularization(model, recipe.regularizer)
            grown = self.done if recipe.regularizer_growth == "linear" else 1.0
            total = total + recipe.regularizer_weight * grown * regular
        return Losses(total, label, teacher, matched, regular)

    def _label(self, output: Any, labels: Any) -> Tensor:
        if self.loss is not None:
            return self.loss(output, labels)
        logits = logits_of(output)
        try:
            return label_loss(logits, labels, self.recipe)
        except (IndexError, RuntimeError):
            check_labels(labels, logits)
            raise

    def _distance(self, output: object, wanted: object, labels: object) -> Tensor:
        """The divergence of class scores; the tree's distance where the output is none, or has a loss of the user's own."""
        scores = isinstance(output, Tensor) and output.dim() == 2
        if self.loss is not None or (labels is None and not scores):
            return tree_distance(output, wanted)
        return divergence(logits_of(output), logits_of(wanted), self.recipe.temperature)
