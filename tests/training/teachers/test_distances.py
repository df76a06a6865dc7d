"""Distillation losses on small numbers, teachers, and the places where features are compared."""

from __future__ import annotations

import math
from collections.abc import Callable

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.modules.outputs import class_dim, logits_of
from binarize.training.teachers.distances import attention, divergence, features, tree_distance
from binarize.training.teachers.teacher import Taps, Teacher, block_ends

Converted = Callable[..., nn.Module]


def test_divergence_of_two_classes_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3), 0.0]])
    # 3/4 log((3/4) / (1/2)) + 1/4 log((1/4) / (1/2))
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(student, teacher).item() == pytest.approx(wanted, rel=1e-5)
    hot = divergence(student * 2, teacher * 2, temperature=2.0)
    assert hot.item() == pytest.approx(4 * wanted, rel=1e-5)


@pytest.mark.parametrize("shape, dim", [((6, 3), 1), ((2, 3, 4, 4), 1), ((2, 7, 3), -1)])
def test_divergence_is_the_mean_over_images_and_positions(shape: tuple[int, ...], dim: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(shape), torch.randn(shape)
    assert class_dim(student) == dim
    flat = [t.movedim(dim, -1).reshape(-1, 3) for t in (student, teacher)]
    torch.testing.assert_close(divergence(student, teacher), divergence(*flat), rtol=1e-5, atol=1e-6)
    assert divergence(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_attention_ignores_the_size_and_the_number_of_channels() -> None:
    torch.manual_seed(0)
    a = torch.randn(2, 4, 3, 3)
    assert attention(a, 7 * a).item() == pytest.approx(0, abs=1e-10)
    assert attention(a.repeat(1, 2, 1, 1), a).item() == pytest.approx(0, abs=1e-10)
    one, other = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    one[..., 0], other[..., 1] = 3, 5
    # Two orthogonal maps of length one.
    assert attention(one, other).item() == pytest.approx(2, rel=1e-6)


def test_features_is_one_for_a_constant_student() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(8, 4)
    assert features(teacher, teacher).item() == 0
    constant = torch.full_like(teacher, teacher.mean().item())
    assert features(constant, teacher).item() == pytest.approx(1, rel=1e-5)


def test_tree_distance_takes_any_structure() -> None:
    torch.manual_seed(0)
    teacher = {"boxes": [torch.randn(3, 4), torch.randn(2, 4)], "labels": torch.tensor([1, 2])}
    student = {"boxes": [teacher["boxes"][0], teacher["boxes"][1] + 1], "labels": torch.tensor([0, 0])}  # type: ignore[index]
    wanted = features(student["boxes"][1], teacher["boxes"][1]) / 2
    torch.testing.assert_close(tree_distance(student, teacher), wanted, rtol=1e-6, atol=0)


def test_other_structures_and_shapes_are_named() -> None:
    a = torch.zeros(2, 3)
    with pytest.raises(UsageError, match=r"\['b'\]"):
        tree_distance({"a": a}, {"a": a, "b": a})
    with pytest.raises(UsageError, match=r"\['a'\].* shapes \(2, 3\) and \(3, 2\)"):
        tree_distance({"a": a}, {"a": a.t()})
    with pytest.raises(UsageError, match="no floating tensor"):
        tree_distance(torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(UsageError, match=r"the logits .* \(2, 3\) and \(2, 2\)"):
        divergence(a, a[:, :2])


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def test_logits_are_found_in_the_usual_outputs() -> None:
    x = torch.zeros(1)
    outputs = (x, {"out": x, "aux": None}, {"logits": x}, (x, None), Output(x))
    assert all(logits_of(output) is x for output in outputs)
    with pytest.raises(UsageError, match="a list, holds no class scores"):
        logits_of([])


def test_a_teacher_runs_in_evaluation_mode_without_gradient_and_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    teacher = Teacher(model)
    x = torch.ones(1, 2, requires_grad=True)
    nn.Sequential(teacher).eval()
    assert model.training
    assert torch.equal(teacher(x), model[0](x)) and not teacher(x).requires_grad
    assert model[1].training


def test_a_teacher_sees_images_in_its_own_normalization() -> None:
    teacher = Teacher(nn.Identity(), scale=torch.tensor([2.0, 1.0]), shift=torch.tensor([0.0, -1.0]))
    found = teacher(torch.ones(1, 2, 1, 1)).flatten()
    assert found.tolist() == [2.0, 0.0]


def test_taps_hold_the_outputs_and_leave_no_hook() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x = torch.ones(1, 2)
    with Taps(model, ["0"]) as taps:
        model(x)
        assert torch.equal(taps["0"], model[0](x))
        taps.clear()
        assert "0" not in taps
    assert not model[0]._forward_hooks
    with pytest.raises(UsageError, match='no module "2"'):
        Taps(model, ["2"]).__enter__()


@pytest.mark.parametrize(
    "name, wanted",
    [("BasicBlocks", None), ("ConvRelu", ("features", "features.4", "features.7", "classifier"))],
)
def test_block_ends_have_one_shape_in_both_models(
    converted: Converted, name: str, wanted: tuple[str, ...] | None
) -> None:
    binary, float_model = converted(name), nets.seeded(nets.ALL[name])
    ends = block_ends(binary)
    assert ends and (wanted is None or ends == wanted)
    x = nets.pictures(2)
    with Taps(binary, ends) as ours, Taps(float_model, ends) as theirs:
        binary(x), float_model(x)
        for end in ends:
            assert ours[end].shape == theirs[end].shape
