"""The loss of a step: its parts and their shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.errors import UsageError
from binarize.schemes.recipe import Recipe
from binarize.training.loop.objective import Objective, check_labels, label_loss
from binarize.training.teachers.distances import divergence, tree_distance
from binarize.training.teachers.teacher import Teacher

Converted = Callable[..., nn.Module]
LABELS = torch.tensor([1, 7])


def teacher(name: str = "ConvRelu") -> Teacher:
    return Teacher(nets.seeded(nets.ALL[name]))


def close(a: Tensor | None, b: Tensor) -> None:
    assert a is not None
    torch.testing.assert_close(a.double(), b.double(), rtol=1e-5, atol=1e-7)


def test_shares_of_labels_and_teacher(converted: Converted) -> None:
    model, float_model, x = converted("ConvRelu"), teacher(), nets.pictures(2)
    losses, output = Objective(Recipe(teacher_weight=0.25, temperature=2), [float_model])(model, x, LABELS)
    close(losses.label, F.cross_entropy(output, LABELS))
    close(losses.teacher, divergence(output, float_model(x), 2))
    assert losses.label is not None and losses.teacher is not None
    close(losses.total, 0.75 * losses.label + 0.25 * losses.teacher)


def test_several_teachers_count_alike(converted: Converted) -> None:
    model, x = converted("ConvRelu"), nets.pictures(2)
    first, second = teacher(), Teacher(nets.seeded(nets.ALL["ConvRelu"], seed=1))
    losses, output = Objective(Recipe(), [first, second])(model, x, LABELS)
    close(losses.teacher, (divergence(output, first(x)) + divergence(output, second(x))) / 2)


def test_without_labels_the_teacher_is_all(converted: Converted) -> None:
    model, float_model, x = converted("ConvRelu"), teacher(), nets.pictures(2)
    losses, output = Objective(Recipe(), [float_model])(model, x)
    assert losses.label is None
    close(losses.total, divergence(output, float_model(x)))
    with pytest.raises(UsageError, match="nothing to learn from"):
        Objective(Recipe())(model, x)


class Tree(nn.Module):
    """A model with two outputs of which none is a class score."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"boxes": x * self.factor, "maps": [x + self.factor]}


def test_without_labels_any_output_tree_is_compared() -> None:
    student, other, x = Tree(1.0), Teacher(Tree(2.0)), nets.pictures(2)
    losses, output = Objective(Recipe(), [other])(student, x)
    close(losses.total, tree_distance(output, other(x)))
    losses.total.backward()
    assert student.factor.grad is not None and student.factor.grad < 0


def test_a_loss_of_ones_own(converted: Converted) -> None:
    model, x = converted("ConvRelu"), nets.pictures(2)
    objective = Objective(Recipe(), loss=lambda output, labels: (output.sum(1) - labels).square().mean())
    losses, output = objective(model, x, LABELS)
    close(losses.total, (output.sum(1) - LABELS).square().mean())


@pytest.mark.parametrize("match", ["attention", "features"])
def test_features_on_the_way_count(converted: Converted, match: str) -> None:
    model, x = converted("BasicBlocks"), nets.pictures(2)
    plain, _ = Objective(Recipe(), [teacher("BasicBlocks")])(model, x, LABELS)
    recipe = Recipe(match=match, match_weight=3)  # type: ignore[arg-type]
    losses, _ = Objective(recipe, [teacher("BasicBlocks")])(model, x, LABELS)
    assert losses.match is not None and losses.match > 0
    close(losses.total, plain.total + 3 * losses.match)
    losses.total.backward()
    with pytest.raises(UsageError, match="compares with a teacher, and there is none"):
        Objective(recipe)


def test_points_can_be_named(converted: Converted) -> None:
    model, recipe = converted("BasicBlocks"), Recipe(match="attention")
    objective = Objective(recipe, [teacher("BasicBlocks")], points=["stem"])
    losses, _ = objective(model, nets.pictures(2), LABELS)
    # The stem is float and equal in both.
    assert losses.match is not None and losses.match.item() == 0


def test_the_regularizer_counts(converted: Converted) -> None:
    model, x = converted("ConvRelu"), nets.pictures(2)
    losses, _ = Objective(Recipe(regularizer="bipolar", regularizer_weight=1e-3))(model, x, LABELS)
    assert losses.label is not None and losses.regularizer is not None
    close(losses.total, losses.label + 1e-3 * losses.regularizer)


def test_label_smoothing_and_shares_of_classes() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, 1])
    hot = F.one_hot(labels, 3).float()
    close(label_loss(logits, labels, Recipe()), label_loss(logits, hot, Recipe()))
    smooth = 0.9 * hot + 0.1 / 3
    close(label_loss(logits, labels, Recipe(label_smoothing=0.1)), label_loss(logits, smooth, Recipe()))


def test_square_hinge_by_hand() -> None:
    # Right class at 0.5: (1 - 0.5)^2; wrong class at -2: 0.
    found = label_loss(torch.tensor([[0.5, -2.0]]), torch.tensor([0]), Recipe(loss="square_hinge"))
    assert found.item() == pytest.approx(0.125)


def test_segmentation_ignores_pixels_of_no_class() -> None:
    logits, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]])
    logits[0, 1, 0, 0] = 3
    close(
        label_loss(logits, labels, Recipe()), F.cross_entropy(torch.tensor([[0.0, 3.0]]), torch.tensor([1]))
    )
    check_labels(labels, logits)


def test_a_step_on_a_label_that_is_no_class_says_so() -> None:
    model = nn.Linear(4, 10)
    with pytest.raises(UsageError, match="the data has 15 classes and the model 10 outputs"):
        Objective(Recipe())(model, torch.randn(3, 4), torch.tensor([0, 14, 2]))


@pytest.mark.parametrize(
    "labels, shape, message",
    [
        ([0, 3], (2, 3), "the data has 4 classes and the model 3 outputs"),
        ([0, -1], (2, 3), "classes and the model 3 outputs"),
        ([0, 1, 1], (2, 3), r"labels have the shape (3,), where the model's scores (2, 3) need (2,)"),
        ([0, 1], (2, 3, 4, 4), "need (2, 4, 4)"),
    ],
)
def test_labels_that_are_no_classes_of_the_model(
    labels: list[int], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_labels(torch.tensor(labels), torch.zeros(shape))
    assert message in str(caught.value)
