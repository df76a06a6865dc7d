"""What the parameters of a model promise for its values: held against values that were drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.layers.shortcuts import MeanChannels, RepeatChannels
from binarize.passes.moments import promised
from binarize.planning.record.origin import Join, Origin

DRAWS = 20_000


class Scalar(nn.Module):
    """A norm with one number for all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))


# 64 quantiles cut the tails off, which takes a hundredth of a deviation and a twentieth of a variance away.
MEAN: dict[str, float] = {"rtol": 0.02, "atol": 0.06}
VARIANCE: dict[str, float] = {"rtol": 0.25, "atol": 0.06}


def norm(bias: list[float], weight: list[float]) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(len(bias))
    with torch.no_grad():
        made.bias.copy_(torch.tensor(bias))
        made.weight.copy_(torch.tensor(weight))
    return made


def drawn(made: nn.BatchNorm2d, *shape: int) -> Tensor:
    return (torch.randn(DRAWS, *shape, made.num_features) * made.weight + made.bias).detach()


def agree(found: tuple[Tensor, Tensor] | None, values: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found[0], values.mean(0), **MEAN)
    torch.testing.assert_close(found[1], values.var(0), **VARIANCE)


@pytest.mark.parametrize(
    "name, function",
    [
        ("", lambda x: x),
        ("relu", F.relu),
        ("relu6", F.relu6),
        ("silu", F.silu),
        ("gelu", F.gelu),
        ("hardswish", F.hardswish),
        ("sigmoid", torch.sigmoid),
    ],
)
@pytest.mark.parametrize("window", [1, 9])
def test_behind_a_norm_values_are_normal(
    name: str, function: Callable[[Tensor], Tensor], window: int
) -> None:
    torch.manual_seed(0)
    made = norm([-1.0, 0.0, 2.0], [0.5, -2.0, 1.0])
    found = promised(nn.Sequential(made), Origin("0", activation=name, window=window))
    agree(found, function(drawn(made, window)).amax(1))


def test_a_layer_without_a_norm_yields_what_its_filters_make_of_independent_inputs() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 4)
    with torch.no_grad():
        found = promised(nn.Sequential(layer), Origin("0", activation="relu"))
        agree(found, F.relu(layer(torch.randn(DRAWS, 16))))


def test_moments_of_what_is_added_are_those_of_the_sum() -> None:
    torch.manual_seed(0)
    root = nn.Sequential(norm([0.5, -1.0], [1.0, 2.0]), norm([1.0, 0.0], [1.0, 0.5]))
    terms = (Origin("0"), Origin("1", activation="relu"))
    found = promised(root, Origin(terms=terms, op="add", activation="relu"))
    agree(found, F.relu(drawn(root[0]) + F.relu(drawn(root[1]))))


def test_joined_channels_keep_their_own_moments_in_order() -> None:
    root = nn.Sequential(norm([1.0], [1.0]), norm([2.0, 3.0], [1.0, 1.0]))
    terms = (Origin("1"), Origin("0", factor=0.5))
    found = promised(root, Origin(terms=terms, op="concat"))
    assert found is not None
    torch.testing.assert_close(found[0], torch.tensor([2.0, 3.0, 0.5]))


@pytest.mark.parametrize(
    "made, more",
    [
        (nn.LayerNorm((3, 4, 4), bias=False), {}),
        (nn.LayerNorm((3, 4)), {}),
        (Scalar(), {}),
        (nn.BatchNorm2d(3), {"activation": "tanhshrink"}),
        (nn.ConvTranspose2d(3, 3, 2), {}),
        (nn.BatchNorm2d(3), {"norm": None}),
    ],
)
def test_without_numbers_nothing_is_promised(made: nn.Module, more: dict[str, Any]) -> None:
    assert promised(nn.Sequential(made), Origin(**{"norm": "0", **more})) is None


def test_channels_that_do_not_fit_promise_nothing() -> None:
    root = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(4))
    terms = (Origin("0"), Origin("1"))
    assert promised(root, Origin(terms=terms, op="add")) is None


def test_a_shortcut_repeats_or_averages_channels_as_its_module_does() -> None:
    root = nn.Sequential(norm([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 1.0, 2.0]))
    kinds: tuple[tuple[Join, nn.Module], ...] = (("repeat", RepeatChannels(2)), ("mean", MeanChannels(2)))
    for op, module in kinds:
        found = promised(root, Origin(terms=(Origin("0"),), op=op, times=2))
        assert found is not None
        torch.testing.assert_close(found[0], module(root[0].bias.detach().unsqueeze(0))[0])
        torch.testing.assert_close(found[1].shape, found[0].shape)


def test_a_norm_without_numbers_yields_standard_values() -> None:
    found = promised(nn.Sequential(nn.BatchNorm2d(3, affine=False)), Origin("0"))
    assert found is not None
    torch.testing.assert_close(found, (torch.zeros(3), torch.ones(3)), atol=0.05, rtol=0)


def test_a_projection_adds_a_variance_of_one() -> None:
    root = nn.Sequential(norm([1.0, 2.0], [1.0, 2.0]))
    found = promised(root, Origin(terms=(Origin("0"), Origin(terms=(), op="unit")), op="add"))
    assert found is not None
    torch.testing.assert_close(found[0], torch.tensor([1.0, 2.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], torch.tensor([2.0, 5.0]), atol=0, rtol=0.05)
