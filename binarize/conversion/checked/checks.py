"""What every conversion is checked for before anybody gets it, and the comparison with the float model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from binarize.modules.outputs import class_scores, opened
from binarize.report.data import Agreement, Check

__all__ = ["compare_outputs", "same_top1"]


def compare_outputs(expected: object, output: object, *, fixed_sizes: bool = True) -> list[Check]:
    """The converted model yields the same structure and shapes as the float model, and finite numbers.

    Without `fixed_sizes` only the numbers of axes count: a detector finds as many boxes as it likes.
    """
    theirs, their_tree = pytree.tree_flatten(opened(expected))
    ours, our_tree = pytree.tree_flatten(opened(output))
    shapes = [_shape(value, fixed_sizes) for value in theirs], [_shape(value, fixed_sizes) for value in ours]
    same = their_tree == our_tree and shapes[0] == shapes[1]
    checks = [
        Check(
            "output shapes equal the float model's", same, "" if same else f"{shapes[0]} became {shapes[1]}"
        )
    ]
    float_finite = all(_finite(value) for value in theirs)
    finite = all(_finite(value) for value in ours)
    if float_finite:
        checks.append(
            Check("output finite", finite, "" if finite else "NaN or infinity in the converted output")
        )
    return checks


def same_top1(expected: object, output: object) -> Agreement | None:
    """How often both models name the same class; None where the output is no table of class scores."""
    theirs, ours = class_scores(expected), class_scores(output)
    if (
        theirs is None
        or ours is None
        or theirs.dim() != 2
        or theirs.shape != ours.shape
        or theirs.shape[1] < 2
    ):
        return None
    same = (theirs.argmax(1) == ours.argmax(1)).double().mean().item()
    return Agreement(same, theirs.shape[0])


def _shape(value: object, sizes: bool) -> Any:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return tuple(value.shape) if sizes else f"{value.dim()} axes"


def _finite(value: object) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
        return True
    return bool(torch.isfinite(value).all())
