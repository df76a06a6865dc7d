"""Names and shapes in a few bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.sources.index.fingerprints import (
    BINS,
    EMPTY,
    body_hash,
    likeness,
    names_hash,
    shapes_of,
    sketch,
)

NET = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (10, 8), "fc.bias": (10,)}
HEADS = ("fc.weight", "fc.bias")


def test_counters_and_what_is_no_tensor_are_left_out() -> None:
    state = nn.BatchNorm2d(2).state_dict() | {"_extra_state": {"a": 1}, "note": "text"}
    assert shapes_of(state) == dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (2,))


def test_hashes_do_not_depend_on_the_order() -> None:
    turned = dict(reversed(NET.items()))
    assert names_hash(turned) == names_hash(NET)
    assert body_hash(turned) == body_hash(NET)


def test_the_body_knows_every_shape_but_the_heads() -> None:
    more_classes = NET | {"fc.weight": (3, 8), "fc.bias": (3,)}
    assert body_hash(more_classes, HEADS) == body_hash(NET, HEADS)
    assert body_hash(more_classes) != body_hash(NET)
    assert body_hash(NET | {"conv.bias": (4,)}, HEADS) != body_hash(NET, HEADS)
    assert body_hash({name: NET[name] for name in NET if name not in HEADS}) == body_hash(NET, HEADS)


def test_shapes_are_not_glued_together() -> None:
    assert body_hash({"a": (1, 12)}) != body_hash({"a": (11, 2)})
    assert names_hash(["a", "bc"]) != names_hash(["ab", "c"])


@pytest.mark.parametrize("common", [0, 250, 500, 900, 1000])
def test_likeness_estimates_the_share_in_common(common: int) -> None:
    """Of 32 bins: the standard error is at most sqrt(1/4 / 32) = 0.09; three of them."""
    mine = {f"a{i}": (i,) for i in range(1000)}
    other = {f"{'a' if i < common else 'b'}{i}": (i,) for i in range(1000)}
    share = common / (2000 - common)
    assert abs(likeness(sketch(mine), sketch(other)) - share) < 0.27


def test_a_sketch_of_nothing_is_like_nothing() -> None:
    assert sketch({}) == [EMPTY] * BINS
    assert likeness(sketch({}), sketch({})) == 0
    assert likeness(sketch(NET), sketch(NET)) == 1
    assert torch.tensor(sketch(NET)).max() <= EMPTY
