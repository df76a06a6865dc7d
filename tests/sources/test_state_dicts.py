"""Weights are found wherever training scripts put them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources.fill import fill
from binarize.sources.prefixes import unwrapped
from binarize.sources.state_dicts import find_weights, weights_of


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 5))


def on_meta(meta: bool) -> nn.Module:
    with torch.device("meta" if meta else "cpu"):
        return net()


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda state: state, None),
        (lambda state: {"state_dict": state, "epoch": 1}, "state_dict"),
        (lambda state: {"model_state_dict": state, "optimizer": {"state": {}}}, "model_state_dict"),
        (lambda state: {"model": state, "ema": {}}, "model"),
        (lambda state: {"net": state}, "net"),
        (lambda state: {"ema": state, "model": None}, "ema"),
        (lambda state: {"model": {"state_dict": state}}, "model.state_dict"),
        (lambda state: {"ema": {"module": state}}, "ema.module"),
    ],
)
def test_weights_are_found_under_the_usual_names(wrap, where: str | None) -> None:  # type: ignore[no-untyped-def]
    state = net().state_dict()
    found = find_weights(wrap(state), "net.pt")
    assert found.state.keys() == state.keys()
    assert found.notes == ((f"took the weights under {where!r}",) if where else ())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(prefix: str) -> None:
    state = net().state_dict()
    found = find_weights({"state_dict": renamed(state, prefix)}, "net.pt")
    assert found.state.keys() == state.keys()
    assert "stripped" in found.notes[1]


def test_segment_of_a_compiled_submodule_is_stripped() -> None:
    found = find_weights({"body._orig_mod.0.weight": torch.zeros(1)}, "net.pt")
    assert list(found.state) == ["body.0.weight"]


def test_averaged_weights_lose_their_counter() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    assert find_weights(averaged.state_dict(), "net.pt").state.keys() == net().state_dict().keys()


def test_raw_weights_are_preferred_and_averaged_ones_mentioned() -> None:
    raw, averaged = net().state_dict(), net().state_dict()
    found = find_weights({"state_dict": raw, "state_dict_ema": averaged}, "net.pt")
    assert found.state["3.weight"] is raw["3.weight"]
    assert "the averaged weights under 'state_dict_ema' were left" in found.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "an empty dictionary"),
        (
            {"epoch": 3, "loss": 0.5},
            r"no weights found under state_dict, .*it holds epoch \(int\), loss \(float\)",
        ),
        ({"0.scale": torch.ones(1), "0._packed_params._packed_params": (1,)}, "already quantized model"),
    ],
)
def test_what_holds_no_weights_is_described(content: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        find_weights(content, "net.pt")


def test_outer_name_is_taken_off_only_where_the_module_fits_then() -> None:
    state = net().state_dict()
    inner, outer = unwrapped(renamed(state, "model.") | {"loss.weight": torch.ones(1)}, net())
    assert (outer, inner.keys()) == ("model.", state.keys())
    assert unwrapped(dict(state), net())[1] == ""


@pytest.mark.parametrize(
    ("key", "message"),
    [("0.weight_binarizer.alpha", "already binarized"), ("0.zero_point", "already quantized")],
)
def test_binarized_and_quantized_state_dicts_are_told_apart(key: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        fill(on_meta, net().state_dict() | {key: torch.zeros(1)}, "net.pt", "net")


def test_weights_of_a_module_are_its_state_dict() -> None:
    module = net()
    module.register_buffer("table", torch.zeros(1), persistent=False)
    assert weights_of(module, "net.pt").keys() == module.state_dict().keys()
