"""A recurrent layer of a file computes the same; the lists by which it finds its weights are never the file's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from binarize.errors import SourceError
from binarize.sources import load, load_pickle_safely

LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "LSTM": lambda: nn.LSTM(4, 6, num_layers=2, bidirectional=True, proj_size=3),
    "GRU": lambda: nn.GRU(4, 6, batch_first=True, bias=False),
    "RNN": lambda: nn.RNN(4, 6, nonlinearity="relu"),
}


def saved(layer: nn.Module, tmp_path: Path) -> Path:
    """The file of a layer as its dictionary is, without what torch sets right when a recurrent one is saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.RNNBase, "__getstate__", _state)
        torch.save(layer, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def _state(layer: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(layer).items() if name != "_flat_weight_refs"}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_it_computes_the_same(name: str, tmp_path: Path) -> None:
    layer, x = LAYERS[name](), torch.randn(5, 2, 4)
    again = load_pickle_safely(saved(layer, tmp_path))
    assert isinstance(again, nn.RNNBase) and again._flat_weights_names == layer._flat_weights_names
    torch.testing.assert_close(again(x)[0], layer(x)[0], rtol=0, atol=0)


def test_lists_of_the_file_are_not_believed(tmp_path: Path) -> None:
    layer = nn.GRU(4, 6)
    vars(layer).update(_flat_weights_names=["forward"], _flat_weights=[{}], _all_weights=[["forward"]])
    again = load(str(saved(layer, tmp_path))).module
    assert isinstance(again, nn.GRU) and again._flat_weights_names == nn.GRU(4, 6)._flat_weights_names


@pytest.mark.parametrize(
    "name, value",
    [("num_layers", 2), ("num_layers", 1 << 40), ("hidden_size", 7), ("input_size", 5), ("bidirectional", True),
     ("bias", 1), ("proj_size", 2), ("proj_size", -1), ("mode", "GRU"), ("mode", None), ("weight_ih_l0", None)],
)  # fmt: skip
def test_sizes_that_do_not_fit_the_weights_are_damage(name: str, value: Any, tmp_path: Path) -> None:
    layer = nn.LSTM(4, 6)
    (layer._parameters if name == "weight_ih_l0" else vars(layer))[name] = value
    with pytest.raises(SourceError, match="damaged: a LSTM in it has"):
        load(str(saved(layer, tmp_path)))
