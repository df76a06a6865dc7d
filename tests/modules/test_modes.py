"""What is set for a while is as it was afterwards, whatever happened in between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from binarize.modules.modes import evaluating, torch_threads, undisturbed


def test_every_module_has_its_own_mode_again() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout().eval())
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False]


def test_torch_has_as_many_threads_again() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_random_numbers_go_on_as_if_nothing_had_run() -> None:
    model = nn.Linear(1, 1)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with torch.inference_mode(), undisturbed(model):
        made = torch.rand(5)
    assert torch.equal(torch.rand(2), expected) and not made.is_inference()
