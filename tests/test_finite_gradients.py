"""The gradients of the first step are finite for every scheme where they are so for the float network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import binarize
from binarize.layers.gradient_bound import BOUND, bounded
from binarize.layers.layer import BinaryLayer

SCHEMES = sorted(path.stem for path in (Path(__file__).parents[1] / "rules").glob("*.yaml"))
CHANNELS = 16


class Tiny(nn.Module):
    """Two binary convolutions of 16 channels and a binary linear layer between float ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 1)
        self.first, self.norm1 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)
        self.second, self.norm2 = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS)
        self.inner, self.head = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.norm1(self.first(x)).relu()
        x = self.norm2(self.second(x)).relu()
        return self.head(self.inner(x.mean((2, 3))).relu())


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def fill(value: float) -> Callable[[Tiny], None]:
    def change(model: Tiny) -> None:
        for layer in (model.first, model.second, model.inner):
            nn.init.constant_(layer.weight, value)

    return change


def nothing(model: Tiny) -> None:
    pass


def still_norms(model: Tiny) -> None:
    for norm in (model.norm1, model.norm2):
        if isinstance(norm, nn.Identity):
            continue  # its layer centres its own sums
        assert norm.running_var is not None
        norm.running_var.zero_()
        nn.init.zeros_(norm.weight)


def stretched(size: float) -> Callable[[Tiny], None]:
    def change(model: Tiny) -> None:
        for layer in (model.first, model.second, model.inner):
            layer.weight.data.mul_(size)

    return change


# Name -> (what is done to the float network, its input, whether it trains)
CASES: dict[str, tuple[Callable[[Tiny], None], Tensor, bool]] = {
    "maps of one pixel": (nothing, noise(4, 3, 1, 1), True),
    "one image of one pixel, evaluated": (nothing, noise(1, 3, 1, 1), False),
    "constant filters": (fill(0.1), noise(4, 3, 4, 4), True),
    "zero filters": (fill(0.0), noise(4, 3, 4, 4), True),
    "tiny filters": (fill(1e-38), noise(4, 3, 4, 4), True),
    "filters of small numbers": (stretched(1e-30), noise(4, 3, 4, 4), True),
    "filters of large numbers": (stretched(1e15), noise(4, 3, 4, 4), True),
    "norms that let nothing through": (still_norms, noise(4, 3, 4, 4), True),
    "norms of no variance, evaluated": (still_norms, noise(4, 3, 4, 4), False),
    "equal images": (nothing, noise(1, 3, 4, 4).expand(4, 3, 4, 4), True),
    "images of one colour": (nothing, torch.ones(4, 3, 4, 4), True),
    "black images": (nothing, torch.zeros(4, 3, 4, 4), True),
    "images of small numbers": (nothing, noise(4, 3, 4, 4) * 1e-38, True),
    "images of large numbers": (nothing, noise(4, 3, 4, 4) * 1e18, True),
    "images of very large numbers, evaluated": (nothing, noise(4, 3, 4, 4) * 1e30, False),
}


def bad_gradients(model: nn.Module, x: Tensor, trains: bool) -> list[str]:
    model.train(trains)
    x = x.clone().requires_grad_()
    (nn.functional.log_softmax(model(x), 1)[:, 0].mean()).backward()
    named = [*model.named_parameters(), ("input", x)]
    return [name for name, one in named if one.grad is not None and not one.grad.isfinite().all()]


@pytest.fixture(scope="module", params=SCHEMES)
def converted(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = binarize.convert(
            Tiny(), request.param, shortcuts="missing", example_input=noise(4, 3, 4, 4), calibrate=False
        )
    # The first of them has the ends binary too, the other one the last layer, which yields expectations.
    expected = {"bnn_paper": 5, "naive-bernoulli": 4}.get(request.param, 3)
    assert sum(isinstance(module, BinaryLayer) for module in model.modules()) == expected
    return model


def test_the_first_step_is_finite(converted: Any) -> None:
    for case, (change, x, trains) in CASES.items():
        model = copy.deepcopy(converted)
        change(model)
        assert bad_gradients(model, x, trains) == [], case


@pytest.mark.parametrize("case", list(CASES))
def test_the_first_step_of_the_float_network_is_finite(case: str) -> None:
    change, x, trains = CASES[case]
    net = Tiny()
    change(net)
    assert bad_gradients(net, x, trains) == []


# A layer's input, whatever came before.
INPUTS: dict[str, Any] = {
    "the largest": lambda: noise(4, CHANNELS, 2, 2).clamp(-1, 1) * 1e38,
    "all at the end of the range": lambda: torch.full((4, CHANNELS, 2, 2), 3.4e38),
    "one of them the largest": lambda: torch.cat(
        [torch.full((1, CHANNELS, 1, 1), -3.4e38), torch.ones(1, CHANNELS, 1, 1)]
    ),
    "small": lambda: noise(4, CHANNELS, 2, 2) * 1e-38,
    "zero": lambda: torch.zeros(2, CHANNELS, 1, 1),
    "of both sizes": lambda: noise(4, CHANNELS, 2, 2) * torch.tensor([1e38, 1e-38]),
}


def test_a_layer_is_finite_on_any_finite_input(converted: Any) -> None:
    for case, make in INPUTS.items():
        layer, x = copy.deepcopy(converted).first, make().requires_grad_()
        product = layer.multiply(layer.operand(x), layer.binarized_weight()[0], None)
        (product.mean() * 1e-3).backward()
        for name, one in [("input", x), *layer.named_parameters()]:
            assert one.grad is None or one.grad.isfinite().all(), (case, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_gradient_above_the_bound_keeps_its_direction(dtype: torch.dtype) -> None:
    g = torch.tensor([3e30, -1e30, 0.0, 7e-5], dtype=dtype)
    found = bounded(g)
    torch.testing.assert_close(found, g * (BOUND / 3e30), rtol=1e-2, atol=0)
    assert found.isfinite().all() and found.abs().max() <= BOUND * 1.01


def test_any_other_gradient_is_passed_on_as_it_is() -> None:
    inf, nan = float("inf"), float("nan")
    for values in ([1e12, -1e12], [0.0], [], [inf, 1.0], [-inf, 1e30], [nan, 1e30]):
        g = torch.tensor(values)
        assert bounded(g) is g
    half = torch.tensor([6e4, inf], dtype=torch.float16)
    assert bounded(half) is half


def test_a_deep_net_behind_norms_of_little_variance_has_a_finite_gradient() -> None:
    torch.manual_seed(0)
    blocks = [part for _ in range(24) for part in (nn.Linear(16, 16), nn.BatchNorm1d(16, eps=1e-30))]
    net = nn.Sequential(nn.Linear(16, 16), *blocks, nn.Linear(16, 2))
    x = torch.randn(1, 16) + 1e-4 * torch.randn(8, 16)
    model = binarize.convert(net, "bireal", shortcuts="never", example_input=x, calibrate=False).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.constant_(layer.weight, 1e3)
    model(x).sum().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads) and max(grad.max() for grad in grads) > 1e9


def test_writing_over_what_a_layer_gives_is_still_allowed() -> None:
    net = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, 2))
    x = torch.randn(8, 4)
    model = binarize.convert(net, "binaryconnect", example_input=x, calibrate=False)
    model(x).sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("shortcuts", ["missing", "every"])
@pytest.mark.parametrize("scheme", ["adabin", "bireal"])
def test_a_deep_narrow_network_on_small_noise(scheme: str, shortcuts: str) -> None:
    torch.manual_seed(0)
    net, x = torchvision.models.shufflenet_v2_x0_5(), noise(4, 3, 64, 64)
    model = binarize.convert(net.eval(), scheme, shortcuts=shortcuts, example_input=x, calibrate=False)
    assert bad_gradients(model, x, True) == []
