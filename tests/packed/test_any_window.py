"""Fused models on windows of every kind: strides beyond the image, padding beyond the kernel, one pixel."""

from __future__ import annotations

import random

import pytest
import torch
from packed_layers import packed
from torch import Tensor, nn

from binarize.kernels import variants as kernels
from binarize.packed.fused.float_conv import FloatConv
from binarize.packed.fused.fuse import fuse
from binarize.packed.fused_conv import FusedConv
from binarize.packed.window import Window

# image, kernel, stride, padding, pool (side, stride, padding)
Case = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int, int] | None]
NAMED: list[Case] = [
    ((1, 1), (1, 1), (1, 5), (0, 2), None),  # the only window lies in the margin, left of the image
    ((6, 8), (1, 1), (1, 5), (0, 2), None),
    ((6, 8), (1, 1), (50, 60), (3, 2), None),
    ((1, 1), (1, 1), (3, 3), (2, 2), None),
    ((5, 4), (1, 3), (2, 7), (4, 5), None),
    ((2, 2), (6, 1), (1, 1), (3, 0), None),  # a kernel larger than the image
    ((3, 9), (3, 9), (1, 1), (0, 0), None),
    ((1, 7), (1, 7), (1, 2**30 - 1), (0, 3), None),
    ((9, 9), (1, 1), (2**24, 2**30 - 1), (0, 0), None),
    ((4, 4), (3, 3), (1, 1), (1, 1), (9, 5, 4)),  # a pool larger than its image
    ((4, 4), (2, 2), (1, 3), (2, 2), (2, 9, 1)),
]


def drawn(count: int) -> list[Case]:
    draw, cases = random.Random(0), list[Case]()
    while len(cases) < count:
        kernel = draw.choice([(1, 1), (1, 1), (1, 5), (3, 3), (4, 2)])
        image, padding = (draw.randint(1, 9), draw.randint(1, 9)), (draw.randint(0, 6), draw.randint(0, 6))
        stride, side = (draw.choice([1, 2, 3, 5, 11]), draw.choice([1, 2, 3, 5, 11])), draw.randint(1, 4)
        pool = draw.choice([None, (side, draw.randint(1, 6), draw.randint(0, side // 2))])
        sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(image, kernel, stride, padding)]
        reach = side - 2 * pool[2] if pool else 1
        if min(n + 2 * p - k for n, k, p in zip(image, kernel, padding)) >= 0 and min(sizes) >= reach:
            cases.append((image, kernel, stride, padding, pool))
    return cases


def memory_forms(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("cases", [NAMED, drawn(80)], ids=["named", "drawn"])
def test_a_fused_float_convolution_is_that_of_torch(cases: list[Case], variants: object) -> None:
    torch.manual_seed(0)
    for image, kernel, stride, padding, pool in cases:
        conv = nn.Conv2d(3, 16, kernel, stride, padding)
        behind = [] if pool is None else [nn.MaxPool2d(*pool)]
        model, x = nn.Sequential(conv, *behind).eval(), torch.randn(2, 3, *image)
        fused = fuse(model, x)
        assert any(isinstance(module, FloatConv) for module in fused.modules())
        with torch.no_grad():
            expected = model.double()(x.double()).float()
            for variant in kernels.variants():
                with kernels.use(variant.name):
                    for laid in memory_forms(x):
                        y = fused(laid)
                        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_a_fused_binary_layer_is_the_reference(variants: object) -> None:
    generator = torch.Generator().manual_seed(0)
    for seed, (image, kernel, stride, padding, _) in enumerate(NAMED + drawn(40)):
        (top, left), (right, bottom) = padding, (seed % 4, seed % 3)
        if min(image[0] + top + bottom - kernel[0], image[1] + left + right - kernel[1]) < 0:
            continue
        stride = (min(stride[0], 1 << 24), min(stride[1], 1 << 24))
        groups, dilation = (1, 3)[seed % 2], ((1, 1), (1, 1 << 24))[kernel[1] == 1]
        window = Window("conv", 6, 9, kernel, stride, dilation, (left, right, top, bottom), groups=groups)
        pad_value = (0, 1, -1)[seed % 3]
        layer = packed(window, seed, pad_value=pad_value, two_levels=seed % 2 == 0, thresholds=True)
        x = torch.randn(2, 6, *image, generator=generator)
        fused = fuse(nn.Sequential(layer, nn.ReLU()), x)
        assert any(isinstance(module, FusedConv) for module in fused.modules())
        with kernels.use("reference"):
            expected = layer(x).relu()
        for variant in kernels.variants():
            with kernels.use(variant.name):
                for laid in memory_forms(x):
                    assert torch.equal(fused(laid), expected), (variant.name, window)
