"""Weights go into the architecture that takes them; what does not fit is listed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import SourceError
from binarize.sources.fill import fill, mismatch, new_head


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 5))


def on_meta(meta: bool) -> nn.Module:
    with torch.device("meta" if meta else "cpu"):
        return net()


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def test_counters_of_batches_may_be_missing() -> None:
    state = {key: v for key, v in net().state_dict().items() if not key.endswith("num_batches_tracked")}
    assert not mismatch(net(), state)
    filled = fill(on_meta, state, "net.pt", "net")
    assert filled[1].num_batches_tracked.item() == 0  # type: ignore[index]


def test_new_head_is_seen_only_where_nothing_else_differs() -> None:
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 7)).state_dict()
    assert new_head(mismatch(net(), other)) == 7
    assert new_head(mismatch(net(), net().state_dict())) is None
    assert new_head(mismatch(net(), other | {"3.weight": torch.zeros(7, 3)})) is None
    assert new_head(mismatch(net(), other | {"more": torch.zeros(1)})) is None


def test_mismatch_lists_missing_unexpected_and_shapes() -> None:
    state = renamed(net().state_dict(), "") | {"extra.bias": torch.zeros(1), "3.weight": torch.zeros(4, 2)}
    del state["0.bias"]
    with pytest.raises(SourceError) as caught:
        fill(on_meta, state, "net.pt", "file.py:net")
    assert str(caught.value).splitlines() == [
        "net.pt does not fit --arch file.py:net:",
        "  missing (1): 0.bias",
        "  not in the architecture (1): extra.bias",
        "  another shape (1): 3.weight is 4x2, expected 5x2",
    ]


def test_auxiliary_heads_are_spoken_of_only_where_they_differ() -> None:
    wrong = net().state_dict() | {"3.weight": torch.zeros(4, 2, 1)}
    with pytest.raises(SourceError, match="another shape") as raised:
        fill(on_meta, wrong, "net.pt", "net")
    assert "auxiliary" not in str(raised.value)
    with pytest.raises(SourceError, match="only auxiliary heads differ"):
        fill(on_meta, net().state_dict() | {"aux1.weight": torch.zeros(1)}, "net.pt", "net")


def test_fill_takes_the_weights_without_drawing_random_ones() -> None:
    state = net().state_dict()
    built = []

    def make(meta: bool) -> nn.Module:
        built.append(meta)
        return on_meta(meta)

    filled = fill(make, state, "net.pt", "net")
    assert built == [True]
    torch.testing.assert_close(filled.state_dict(), state, rtol=0, atol=0)
    assert all(p.requires_grad for p in filled.parameters())


def test_fill_keeps_what_the_state_dict_does_not_hold() -> None:
    def make(meta: bool) -> nn.Module:
        module = on_meta(meta)
        with torch.device("meta" if meta else "cpu"):
            module.register_buffer("table", torch.arange(3.0), persistent=False)
        return module

    assert fill(make, net().state_dict(), "net.pt", "net").table.tolist() == [0.0, 1.0, 2.0]


def test_fill_keeps_ties() -> None:
    def make(meta: bool) -> nn.Module:
        with torch.device("meta" if meta else "cpu"):
            module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        module[1].weight = module[0].weight
        return module

    filled = fill(make, make(False).state_dict(), "net.pt", "net")
    assert filled[0].weight is filled[1].weight  # type: ignore[index]


def test_half_precision_weights_take_the_architectures_precision() -> None:
    state = {key: v.half() if v.is_floating_point() else v for key, v in net().state_dict().items()}
    filled = fill(on_meta, state, "net.pt", "net")
    assert {p.dtype for p in filled.parameters()} == {torch.float32}
