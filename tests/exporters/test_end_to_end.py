"""The comparison of a whole exported file with the packed model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from binarize.exporters.end_to_end import EndToEnd, largest_difference, largest_magnitude

INF = float("inf")


def test_inputs_and_equal_classes_are_counted_over_batches_and_the_difference_is_the_largest() -> None:
    compared = EndToEnd()
    ours = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    compared.add([ours], [ours + torch.tensor([[0.5, 0.0], [0.0, 0.0]])])
    compared.add([ours[:1]], [torch.tensor([[2.25, 2.0]])])
    assert compared.to_json() == {"inputs": 3, "largest_difference": 1.25, "same_class": 2}
    assert str(compared) == "Whole model: largest difference 1.2e+00, same class on 2 of 3."


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 2, 4)])
def test_what_is_no_table_of_scores_has_no_classes(shape: tuple[int, ...]) -> None:
    compared = EndToEnd()
    compared.add([torch.ones(shape)], [torch.ones(shape)])
    compared.add([torch.ones(2, 5)], [torch.ones(2, 5)])
    assert compared.same_class is None and compared.inputs == 5
    assert str(compared) == "Whole model: largest difference 0.0e+00."


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        (torch.tensor([INF, 1.0]), torch.tensor([INF, 1.0]), 0.0),
        (torch.tensor([INF, 1.0]), torch.tensor([1.0, 1.0]), INF),
        (torch.zeros(0, 3), torch.zeros(0, 3), 0.0),
        (torch.tensor([3, -4]), torch.tensor([3, 4]), 8.0),
    ],
)
def test_the_largest_difference(a: Tensor, b: Tensor, found: float) -> None:
    assert largest_difference(a, b) == found


def test_a_magnitude_may_be_divided_by() -> None:
    assert largest_magnitude(torch.tensor([1.0, -3.0])) == 3
    assert largest_magnitude(torch.zeros(2)) == largest_magnitude(torch.zeros(0)) == 1e-30
