"""Float sums in the order of their indices: what the order is, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.exporters.c.in_order import in_order
from binarize.exporters.c.sums import norm_affine


def integers(*shape: int) -> Tensor:
    """Small ones: sums of their products are exact in every order."""
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(0)).float()


def test_each_sum_is_rounded_before_the_next_term() -> None:
    x = torch.tensor([[1e8, 1.0, -1e8, 1.0]])  # ((1e8 + 1) - 1e8) + 1, where 1e8 + 1 = 1e8
    with in_order():
        assert F.linear(x, torch.ones(1, 4)).item() == 1.0
        assert F.conv1d(x[:, None], torch.ones(1, 1, 4)).item() == 1.0
        assert x.mean(1).item() == 0.25
        assert F.avg_pool1d(x[:, None], 4).item() == 0.25
        assert F.linear(x, torch.ones(1, 4), torch.full((1,), -1.0)).item() == 0.0


def test_products_are_not_fused_into_the_sum() -> None:
    a = torch.tensor([[1.0 + 2.0**-12, -1.0]])  # a * a = 1 + 2^-11 + 2^-24, rounded to 1 + 2^-11
    with in_order():
        assert F.linear(a, torch.tensor([[1.0 + 2.0**-12, 1.0]])).item() == 2.0**-11


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv1d(6, 4, 3, stride=2, padding=2, dilation=2, groups=2),
        lambda: nn.Conv1d(6, 4, 3, padding="same", bias=False),
        lambda: nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(1, 0)),
        lambda: nn.Conv3d(6, 4, 2, padding=1),
        lambda: nn.Linear(5, 3),
        lambda: nn.AvgPool2d(2, 2, 1, ceil_mode=True, count_include_pad=True),
        lambda: nn.AvgPool2d((2, 4), (2, 1), ceil_mode=True, count_include_pad=False),
        lambda: nn.AvgPool2d(2, divisor_override=8),
        lambda: nn.AvgPool1d(2, padding=1),
        lambda: nn.AdaptiveAvgPool2d((1, None)),
        lambda: nn.AdaptiveAvgPool1d(2),
    ],
)
def test_what_has_one_exact_sum_is_torchs(make: Callable[[], nn.Module]) -> None:
    layer = make()
    for parameter in layer.parameters():
        parameter.data = integers(*parameter.shape)
    axes = int(type(layer).__name__[-2]) if type(layer).__name__.endswith("d") else 0
    x = integers(2, 6, *(8, 4, 4)[:axes]) if axes else integers(2, 7, 5)
    with torch.no_grad():
        expected = layer(x)
        with in_order():
            found = layer(x)
    if "Avg" in type(layer).__name__:  # quotients of exact sums may be rounded products of inverses in torch
        torch.testing.assert_close(found, expected, rtol=2**-22, atol=0.0)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("dim", "keep"), [(1, False), ((2, 3), False), ((-1, 1), True), (None, False)])
def test_a_mean_over_any_axes(dim: int | tuple[int, ...] | None, keep: bool) -> None:
    x = integers(2, 4, 4, 2)
    expected = x.mean() if dim is None else x.mean(dim, keepdim=keep)
    with in_order():
        found = x.mean() if dim is None else x.mean(dim, keepdim=keep)
    assert torch.equal(found, expected)  # counts are powers of two


def test_a_batch_norm_is_one_product_and_one_sum() -> None:
    norm = nn.BatchNorm2d(3).eval()
    torch.manual_seed(0)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(3) + 0.5)
    x = torch.randn(2, 3, 4, 4)
    a, b = norm_affine(norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data, norm.eps)
    with torch.no_grad(), in_order():
        found = norm(x)
    assert torch.equal(found, x * a.view(1, 3, 1, 1) + b.view(1, 3, 1, 1))
    torch.testing.assert_close(found, norm(x).detach(), rtol=1e-5, atol=1e-6)


def test_one_image_has_the_bits_that_it_has_in_a_batch() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(144, 10)
    )
    x = torch.randn(8, 3, 8, 8)
    with torch.no_grad(), in_order():
        together = net.eval()(x)
        alone = torch.cat([net(image[None]) for image in x])
    assert torch.equal(together, alone)
