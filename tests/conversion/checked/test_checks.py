"""What is compared between the float and the converted model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from binarize.conversion.checked.checks import compare_outputs, same_top1

NAN = torch.tensor([[float("nan")]])


@pytest.mark.parametrize(
    "expected, output, failing",
    [
        (torch.ones(2, 3), torch.zeros(2, 3), []),
        (torch.ones(2, 3), torch.zeros(2, 4), ["output shapes equal the float model's"]),
        ({"a": torch.ones(2)}, {"a": torch.ones(2)}, []),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, ["output shapes equal the float model's"]),
        ((torch.ones(2), None, 3), (torch.ones(2), None, 3), []),
        ((torch.ones(2),), [torch.ones(2)], ["output shapes equal the float model's"]),
        (torch.ones(1, 1), NAN, ["output finite"]),
        # What was not finite before need not be now.
        (NAN, NAN, []),
        (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), []),
    ],
)
def test_structure_shapes_and_finiteness_are_checked(expected: Any, output: Any, failing: list[str]) -> None:
    assert [check.name for check in compare_outputs(expected, output) if not check.passed] == failing


def test_a_detector_may_find_more_boxes_but_not_give_another_structure() -> None:
    boxes, more = [{"boxes": torch.ones(0, 4)}], [{"boxes": torch.ones(7, 4)}]
    assert all(check.passed for check in compare_outputs(boxes, more, fixed_sizes=False))
    assert not all(check.passed for check in compare_outputs(boxes, more))
    assert not all(
        check.passed for check in compare_outputs(boxes, [{"boxes": torch.ones(7)}], fixed_sizes=False)
    )


def test_agreement_is_the_share_of_equal_classes() -> None:
    scores = torch.eye(4)
    agreement = same_top1(scores, scores[[0, 1, 3, 2]])
    assert agreement is not None
    assert (agreement.same_top1, agreement.images) == (0.5, 4)


@pytest.mark.parametrize(
    "output", [torch.ones(4), torch.ones(4, 1), torch.ones(2, 3, 4, 4), {"scores": torch.ones(4, 3)}]
)
def test_what_is_no_table_of_scores_has_no_agreement(output: Any) -> None:
    assert same_top1(output, output) is None
