"""Whether two models answer alike, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from binarize.errors import CheckError
from binarize.modules.hooks import silenced_hooks
from binarize.modules.modes import evaluating
from binarize.modules.outputs import tensors_in
from binarize.packed.freeze import Example

__all__ = ["OTHER_INPUTS", "answers_of", "are_equal", "longer"]

# What models raise that take something else than float tensors.
OTHER_INPUTS = (RuntimeError, TypeError, ValueError, IndexError, CheckError)


def answers_of(model: nn.Module, example: Example | None) -> list[Tensor] | None:
    """What a model gives for an example; None where it takes other inputs (integers, structures)."""
    if example is None:
        return None
    with silenced_hooks(model), evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            output = model(*example[0], **example[1])
        except OTHER_INPUTS:
            return None
    return tensors_in(output)


def are_equal(found: list[Tensor] | None, expected: list[Tensor] | None) -> bool:
    """Bit for bit, also where a model gives no number (NaN)."""
    if found is None or expected is None:
        return found is expected
    return len(found) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        for a, b in zip(found, expected)
    )


def longer(example: Example | None) -> Example | None:
    """The same inputs and one more."""
    return pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x[:1]]), example)
