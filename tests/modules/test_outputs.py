"""Every tensor of an output is found, whatever holds it."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.conversion.checked.checks import compare_outputs, same_top1
from binarize.modules.outputs import class_scores, opened, tensors_in

A, B = torch.eye(2), torch.ones(3)
Named = namedtuple("Named", ["first", "second"])


@dataclass
class Answer:
    logits: Tensor
    more: Any = None
    nothing: None = field(default=None)


@dataclass
class Other:
    logits: Tensor


@pytest.mark.parametrize(
    "output",
    [
        (A, None, B),
        [A, (B, None)],
        {"a": A, "b": {"c": B, "d": None}},
        Named(A, B),
        Answer(A, B),
        Answer(A, Answer(B)),
        Answer(A, [Answer(B), 5]),
        UserDict(a=A, b=B),
        SimpleNamespace(a=A, b=[B]),
        (Answer(A), "text", Answer(B)),
    ],
)
def test_tensors_are_found_in_order(output: Any) -> None:
    found = tensors_in(output)
    assert len(found) == 2
    assert found[0] is A and found[1] is B


def test_objects_that_point_at_themselves_end() -> None:
    loop = SimpleNamespace(a=A)
    loop.me = loop
    assert tensors_in(loop)[0] is A


def test_modules_and_objects_without_tensors_stay_what_they_are() -> None:
    for value in (nn.Linear(2, 2), SimpleNamespace(a=1), "text", None, 3.5):
        assert opened(value) is value


@pytest.mark.parametrize(
    ("output", "scores"),
    [
        (A, A), ((A, B), A), ([A], A), ({"logits": A, "x": B}, A), ({"aux": B, "out": A}, A), (Answer(A), A),
        (SimpleNamespace(logits=A), A), (UserDict(logits=A), A), ({"x": A}, None), ((), None), (None, None), ("ab", None),
    ],
)  # fmt: skip
def test_class_scores_are_found_by_name_or_come_first(output: Any, scores: Tensor | None) -> None:
    assert class_scores(output) is scores


def checks(expected: Any, output: Any) -> list[bool]:
    return [check.passed for check in compare_outputs(expected, output)]


def test_shapes_structure_and_numbers_inside_objects_are_compared() -> None:
    assert checks(Answer(A, [B]), Answer(A + 1, [B])) == [True, True]
    assert checks(Answer(A, [B]), Answer(A, [B[:2]])) == [False, True]
    assert checks(Answer(A), Answer(A, B)) == [False, True]
    assert checks(Answer(A), Answer(A / 0)) == [True, False]
    assert checks(Answer(A), Other(A)) == [False, True]
    assert checks((A, None), (A, B)) == [False, True]


def test_agreement_is_that_of_the_class_scores() -> None:
    agreement = same_top1(Answer(A), Answer(A.flip(1)))
    assert agreement is not None and (agreement.same_top1, agreement.images) == (0.0, 2)
    assert same_top1({"boxes": A}, {"boxes": A}) is None


def test_the_last_layers_of_a_dataclass_are_found_by_data_flow() -> None:
    """One for each tensor that comes out."""
    model = nets.seeded(nets.Structured)
    planned = binarize.plan(model, "adabin", example_input=nets.example(model))
    assert (planned.report.first, planned.report.last) == (("stem",), ("conv2", "head.fc"))
