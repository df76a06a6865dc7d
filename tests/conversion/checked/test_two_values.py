"""A part that is no binarizer makes no binary layer, and the conversion says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import binarize
from binarize.errors import StrictError

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5)
    )


def rules(**parts: Any) -> dict[str, Any]:
    return {"schema": 1, "schemes": {"odd": parts}, "rules": [{"match": {"name": "3"}, "use": "odd"}]}


def warnings_of(model: Any) -> list[str]:
    """What the report warns of, beside the noise it was made on."""
    return [text for text in model.report.warnings if "binarizer" in text]


@pytest.mark.parametrize("part", ["torch.nn.Identity", "torch.nn.Tanh", "torch.nn.Sigmoid"])
@pytest.mark.parametrize("slot", ["weight", "input"])
def test_a_part_that_is_no_binarizer_is_named(part: str, slot: str) -> None:
    parts = {"weight": "bnn.SteSign", "input": "bnn.SteSign", slot: part}
    model = binarize.convert(net().eval(), rules=rules(**parts), example_input=X)
    kind = part.rpartition(".")[2]
    (warning,) = warnings_of(model)
    assert warning.startswith(f"3.{slot}_binarizer ({kind}) gives ")
    assert "a binary layer has two" in warning
    with pytest.raises(StrictError, match="a binary layer has two"):
        binarize.convert(net().eval(), rules=rules(**parts), example_input=X, strict=True)


def test_of_binarizers_nothing_is_said() -> None:
    parts = {"weight": "bnn.SteSign", "input": "bnn.SteSign"}
    model = binarize.convert(net().eval(), rules=rules(**parts), example_input=X, strict=True)
    assert warnings_of(model) == []
