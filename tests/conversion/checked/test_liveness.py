"""What binary layers read of images: shares of +1, channels that never change, and what is no image."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers.adabin import AdaptiveInput
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.reactnet import RSign
from binarize.conversion.checked.liveness import measure_liveness, upper_values
from binarize.inputs.noise import looks_like_noise
from binarize.layers.conv import BinaryConv2d
from binarize.layers.layer import Threshold
from binarize.layers.linear import BinaryLinear
from binarize.modules.modes import evaluating


def layer_with(binarizer: nn.Module, threshold: nn.Module | None = None) -> BinaryConv2d:
    return BinaryConv2d.from_float(
        nn.Conv2d(2, 2, 1), weight_binarizer=SteSign(), input_binarizer=binarizer, threshold=threshold
    )


def share(layer: nn.Module, x: Tensor) -> tuple[float, float]:
    (found,) = measure_liveness(nn.Sequential(layer), [((x,), {})]).values()
    return found.share_plus, found.constant_channels


def test_shares_are_counted_over_values_and_channels() -> None:
    x = torch.tensor([[[[1.0, -1.0], [1.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    assert share(layer_with(SteSign()), x) == (7 / 8, 1 / 2)
    assert share(layer_with(SteSign()), -x) == (1 / 8, 1 / 2)
    # Zero counts as +1, of either sign.
    assert share(layer_with(SteSign()), torch.tensor([0.0, -0.0]).view(1, 2, 1, 1)) == (1.0, 1.0)


def test_a_channel_is_alive_if_it_changes_between_batches() -> None:
    x = torch.ones(1, 2, 2, 2)
    found = measure_liveness(nn.Sequential(layer_with(SteSign())), [((x,), {}), ((-x,), {})])["0"]
    assert (found.share_plus, found.constant_channels) == (0.5, 0.0)


def test_levels_and_thresholds_move_the_border() -> None:
    x = torch.linspace(0, 1, 8).view(1, 2, 2, 2)
    binarizer = AdaptiveInput()
    binarizer.calibrate(x)
    assert share(layer_with(binarizer), x)[0] == 0.5
    threshold = Threshold(2)
    threshold.calibrate(x)
    assert share(layer_with(SteSign(), threshold), x) == (0.5, 0.0)
    moved = RSign(2)
    moved.calibrate(x)
    assert share(layer_with(moved), x) == (0.5, 0.0)


def test_a_negative_scale_does_not_turn_the_values_round() -> None:
    """AdaBin's alpha acts by its size, so that the larger value stays the upper one."""
    binarizer = AdaptiveInput()
    with torch.no_grad():
        binarizer.alpha.fill_(-0.5)
        binarizer.beta.fill_(3.0)
    x = torch.tensor([[2.0, 4.0]]).view(1, 2, 1, 1)
    assert upper_values(layer_with(binarizer), x).flatten().tolist() == [False, True]


def test_features_of_tokens_are_the_channels() -> None:
    layer = BinaryLinear.from_float(nn.Linear(2, 2), weight_binarizer=SteSign(), input_binarizer=SteSign())
    tokens = torch.tensor([[[1.0, -1.0], [1.0, 1.0], [1.0, 1.0]]])
    assert share(layer, tokens) == (5 / 6, 1 / 2)


def test_layers_with_real_inputs_have_no_share() -> None:
    layer = BinaryConv2d.from_float(nn.Conv2d(2, 2, 1), weight_binarizer=SteSign())
    assert measure_liveness(nn.Sequential(layer), [((torch.ones(1, 2, 2, 2),), {})]) == {}


def test_measuring_leaves_mode_and_hooks() -> None:
    model = nn.Sequential(layer_with(SteSign())).train()
    measure_liveness(model, [((torch.ones(1, 2, 2, 2),), {})])
    assert model.training and not model[0]._forward_pre_hooks


def smooth(n: int = 4, size: int = 16) -> Tensor:
    return nets.pictures(n, size)


@pytest.mark.parametrize(
    "value, verdict",
    [
        (smooth(), None),
        (smooth() * 100 + 7, None),
        (smooth(1, 8), None),
        (torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), "white noise"),
        (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), "white noise"),
        (torch.zeros(4, 3, 16, 16), "constant"),
        (torch.full((4, 10), 3.0), "constant"),
        # Signals, tokens and tables are noise where their numbers are spread as a generator's.
        (torch.randn(8, 4, 32, generator=torch.Generator().manual_seed(0)), "white noise"),
        (torch.rand(8, 128, generator=torch.Generator().manual_seed(0)), "white noise"),
        (torch.randn(8, 128, generator=torch.Generator().manual_seed(0)).relu(), None),
        (torch.randn(8, 128, generator=torch.Generator().manual_seed(0)) + 0.5, None),
        (torch.linspace(0, 50, 1024).sin().view(4, 2, 128), None),
        # Vectors and pictures of a few numbers tell nothing.
        (torch.randn(4, 10, generator=torch.Generator().manual_seed(0)), None),
        (torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)), None),
        (torch.randint(0, 9, (4, 16)), None),
        (torch.empty(4, 3, 16, 16, device="meta"), None),
    ],
)
def test_noise_is_told_from_images_by_its_neighbours(value: Tensor, verdict: str | None) -> None:
    found = looks_like_noise([((value,), {})])
    assert (found is None) if verdict is None else (found is not None and found.startswith(verdict))


@pytest.mark.parametrize(
    "images", [((smooth(), torch.zeros(3, 3)), {}), ((), {"x": {"y": torch.ones(4, 4)}})]
)
def test_every_tensor_of_a_batch_is_looked_at(images: Any) -> None:
    assert looks_like_noise([images]) == "constant"


def test_evaluation_mode_ends_where_it_began() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Dropout())
    model[0].eval()
    with pytest.raises(ValueError, match="stop"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise ValueError("stop")
    assert [module.training for module in model.modules()] == [True, False, True]
