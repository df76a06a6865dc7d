"""A part that is no binarizer makes no binary layer, and the conversion says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import binarize
from binarize.errors import CheckError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5)
    )


def rules(**parts: Any) -> dict[str, Any]:
    return {"schema": 1, "schemes": {"odd": parts}, "rules": [{"match": {"name": "3"}, "use": "odd"}]}


@pytest.mark.parametrize("part", ["torch.nn.Identity", "torch.nn.Tanh", "torch.nn.Sigmoid"])
@pytest.mark.parametrize("slot", ["weight", "input"])
def test_a_part_that_is_no_binarizer_is_named(part: str, slot: str) -> None:
    parts = {"weight": "bnn.SteSign", "input": "bnn.SteSign", slot: part}
    with pytest.raises(CheckError) as caught:
        binarize.convert(net().eval(), rules=rules(**parts), example_input=X)
    kind = part.rpartition(".")[2]
    assert f"binarizers give two values: 3.{slot}_binarizer ({kind}) gives " in str(caught.value)
    assert "; expected two" in str(caught.value)
