"""The float convolution between packed layers: right, the same on every processor, and put in where it suits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from binarize.binarizers.adabin import Maxout
from binarize.binarizers.reactnet import RPReLU
from binarize.errors import UsageError
from binarize.kernels import variants
from binarize.packed.fused.float_conv import FloatConv, suits
from binarize.packed.fused.fuse import fuse

call = torch.ops.binarize
# image, filters, stride, padding, activation, pool
CASES = [
    ((2, 3, 17, 19), (70, 3, 5, 3), [2, 1], [2, 1], "relu", [3, 2, 1]),
    ((1, 40, 9, 7), (20, 40, 1, 1), [2, 2], [0, 0], "none", []),
    ((3, 4, 12, 10), (33, 4, 3, 3), [1, 2], [0, 3], "none", [2, 2, 0]),
    ((1, 1, 7, 7), (1, 1, 7, 7), [1, 1], [3, 3], "relu", [2, 3, 1]),
    ((2, 3, 9, 8), (40, 3, 3, 3), [1, 1], [1, 1], "table", [2, 2, 0]),
    ((2, 35, 6, 5), (65, 35, 1, 1), [1, 1], [0, 0], "table", []),
]


@pytest.mark.parametrize("image, filters, stride, padding, activation, pool", CASES)
def test_float_convolution_is_that_of_torch_and_the_same_on_every_variant(
    image, filters, stride, padding, activation, pool
):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(image, generator=generator), torch.randn(filters, generator=generator)
    bias = torch.randn(filters[0], generator=generator)
    expected = functional.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    options = {"relu": activation == "relu", "pool": pool}
    if activation == "relu":
        expected = expected.relu()
    elif activation == "table":
        pre, above, below, post = table = torch.randn(4, filters[0], generator=generator)
        options["activation"] = table
        z = expected.movedim(1, -1) + pre.double()
        expected = (torch.where(z > 0, above.double(), below.double()) * z + post.double()).movedim(-1, 1)
    expected = functional.max_pool2d(expected, *pool) if pool else expected
    found = []
    for variant in variants.variants():
        if not variant.float_lanes:
            continue
        with variants.use(variant.name):
            for laid in (
                x,
                x.contiguous(memory_format=torch.channels_last),
                x.transpose(2, 3).transpose(2, 3),
            ):
                y = call.float_conv(laid, weight, bias, stride, padding, **options)
                assert y.is_contiguous(memory_format=torch.channels_last)
                torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
                found.append(y)
    assert all(torch.equal(y, found[0]) for y in found)
    with variants.use("reference"):
        y = call.float_conv(x, weight, bias, stride, padding, **options)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_changed_weight_is_laid_out_anew():
    x, weight, bias = torch.ones(1, 2, 3, 3), torch.ones(4, 2, 1, 1), torch.zeros(4)
    assert call.float_conv(x, weight, bias, [1, 1], [0, 0]).eq(2).all()
    weight.mul_(3)
    bias.add_(1)
    assert call.float_conv(x, weight, bias, [1, 1], [0, 0]).eq(7).all()


def test_a_weight_for_other_channels_is_refused():
    with pytest.raises(UsageError, match="for an image of 3 channels"):
        call.float_conv(torch.ones(1, 3, 4, 4), torch.ones(4, 2, 1, 1), torch.zeros(4), [1, 1], [0, 0])
    with pytest.raises(UsageError, match=r"activation is .* \(4, 3\) .*; expected .* \(4, 4\)"):
        image = torch.ones(1, 2, 4, 4), torch.ones(4, 2, 1, 1), torch.zeros(4)
        call.float_conv(*image, [1, 1], [0, 0], activation=torch.zeros(4, 3))


def test_float_convolution_is_visible_to_export():
    arguments = (
        torch.randn(2, 3, 9, 8),
        torch.randn(5, 3, 3, 3),
        torch.randn(5),
        [2, 1],
        [1, 1],
        True,
        [3, 2, 1],
        torch.randn(4, 5),
    )
    torch.library.opcheck(call.float_conv, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("pool", [[3, 2, 1], [2, 2, 0]])
def test_what_is_no_number_stays_in_a_pool_as_in_torch(pool: list[int]) -> None:
    x = torch.randn(1, 3, 9, 9)
    x[0, 0, 4, 4], x[0, 1, 7, 7], x[0, 2, 1, 1] = float("nan"), float("inf"), float("-inf")
    weight, bias = torch.randn(37, 3, 3, 3), torch.zeros(37)
    expected = functional.max_pool2d(functional.conv2d(x, weight), *pool)
    assert expected.isnan().any()
    for variant in variants.variants():
        with variants.use(variant.name):
            y = call.float_conv(x, weight, bias, [1, 1], [0, 0], False, pool)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_stem_with_norm_relu_and_pool_becomes_one_step():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 20, 21)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 40, 1, 2), nn.ReLU(),
    )  # fmt: skip
    model(x)
    fused = fuse(model.eval(), x)
    assert [node.op for node in fused.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    assert sum(isinstance(m, FloatConv) for m in fused.modules()) == 2
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fused(x[:1]), model(x[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.PReLU(8), Maxout(8), RPReLU(8)], ids=lambda m: type(m).__name__)
def test_a_stem_takes_an_activation_with_slopes(activation):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 10)
    for parameter in activation.parameters():
        nn.init.normal_(parameter)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), activation, nn.MaxPool2d(2)).eval()
    fused = fuse(model, x)
    assert [node.op for node in fused.graph.nodes] == ["placeholder", "call_module", "output"]
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-5)


def test_other_convolutions_stay_with_torch():
    assert suits(nn.Conv2d(3, 8, 7)) and suits(nn.Conv2d(256, 8, 1, 2))
    for conv in (
        nn.Conv2d(32, 8, 3),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv2d(4, 8, 3, dilation=2),
        nn.Conv2d(4, 8, 3, padding="same"),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3).double(),
    ):
        assert not suits(conv)
