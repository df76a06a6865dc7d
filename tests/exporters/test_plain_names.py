"""A recorded program names its tensors by plain words, whatever the model's layers are called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.exporters.plain_names import make_names_plain


@pytest.mark.parametrize("name", ["class", 'a"b', "a\\", "a\nb", "é", '1"), [][0], getattr(self, "1'])
def test_odd_names_become_words_and_the_program_runs(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(2, 2))
    model.add_module("_" + name, nn.BatchNorm1d(2))
    model.eval()
    x = torch.randn(3, 2)
    program = torch.export.export(model, (x,), strict=False)
    make_names_plain(program)
    assert len(program.state_dict) == 7 and all(
        part.isidentifier() for key in program.state_dict for part in key.split(".")
    )
    assert torch.equal(program.module()(x), model(x))


def test_plain_names_stay() -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(2, 2)), (torch.randn(3, 2),), strict=False)
    make_names_plain(program)
    assert list(program.state_dict) == ["0.weight", "0.bias"]
