"""Every native variant equals the reference bit for bit, over drawn shapes, inputs and epilogues."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from binarize.errors import UsageError
from binarize.kernels import operators, reference
from binarize.kernels import variants as kernels
from binarize.kernels.bits import pack_bits, pack_words, unpack_words
from binarize.kernels.geometry import Geometry

CASES = settings(
    max_examples=int(os.environ.get("BINARIZE_KERNEL_CASES", "60")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
call = torch.ops.binarize


class Draw:
    """Tensors from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def real(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator, dtype=torch.int32)

    def image(self, *shape: int) -> Tensor:
        """Reals with the values on which signs are easy to get wrong."""
        x = self.real(*shape)
        kind = torch.randint(0, 40, shape, generator=self.generator)
        for value, special in enumerate(
            (0.0, -0.0, float("nan"), -float("nan"), float("-inf"), 1e-42, -1e-42)
        ):
            x[kind == value] = special
        return x


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Geometry, int, int, int]:
    """A geometry, a batch and an image on which it is possible; small enough for the reference."""
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    most = 1030 if kernel[0] * kernel[1] <= 4 else 200 if kernel[0] * kernel[1] <= 12 else 70
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    group_in = draw(st.one_of(st.integers(1, most // groups), st.sampled_from([1, 31, 32, 33, 64])))
    group_out = draw(st.one_of(st.integers(1, 70), st.sampled_from([1, 31, 32, 64, 65, 128])))
    if draw(st.integers(0, 7)) == 0:  # depthwise, possibly with several filters a channel
        groups, group_in, group_out = draw(st.integers(2, 130)), 1, draw(st.integers(1, 3))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    height = draw(st.integers(max(1, spans[0] - padding[0] - padding[1]), spans[0] + 7))
    width = draw(st.integers(max(1, spans[1] - padding[2] - padding[3]), spans[1] + 9))
    geometry = Geometry(
        groups * group_in,
        groups * group_out,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        draw(st.sampled_from([-1, 0, 1])),
    )
    return geometry, draw(st.integers(1, 5)), height, width


def weight_bits(geometry: Geometry, draw: Draw) -> Tensor:
    return pack_bits(draw.real(*geometry.weight_shape) < 0)


def in_form(x: Tensor, form: str, threshold: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if form == "words":
        mask = x < (0 if threshold is None else threshold.view(1, -1, 1, 1))
        return pack_words(mask.permute(0, 2, 3, 1)), None
    return x.contiguous(
        memory_format=torch.channels_last if form == "nhwc" else torch.contiguous_format
    ), threshold


FORMS = st.sampled_from(["nchw", "nhwc", "words"])


@CASES
@given(geometries(), FORMS, st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_dot_products_and_limits_equal_the_reference(
    variants: tuple[kernels.Variant, ...], case: Any, form: str, zero_one: bool, threshold: bool, seed: int
) -> None:
    (geometry, batch, height, width), draw = case, Draw(seed)
    bits, x = weight_bits(geometry, draw), draw.image(batch, geometry.in_channels, height, width)
    x, tau = in_form(x, form, draw.real(geometry.in_channels) if threshold else None)
    limit = draw.integers(-9, 10, geometry.out_channels)
    flip = pack_words(draw.integers(0, 2, geometry.out_channels) == 1)
    (mask,) = reference.input_masks(x, geometry, tau)
    dots = reference.dot(mask, bits, geometry, zero_one)
    sizes, words = operators.sizes_of(geometry), reference.below(dots, limit, flip)
    for variant in variants:
        with kernels.use(variant.name):
            got = call.conv_dot(x, bits, sizes, threshold=tau, zero_one=zero_one)
            assert torch.equal(got, dots), variant.name
            got = call.conv_bits(x, bits, sizes, limit, flip, threshold=tau, zero_one=zero_one)
            assert torch.equal(got, words), variant.name


@CASES
@given(geometries(), FORMS, st.integers(1, 3), st.sets(st.sampled_from(
    ["zero_one", "window_scale", "border", "residual", "activation", "activation_first", "threshold"]
)), st.integers(0, 2**31))  # fmt: skip
def test_float_results_equal_the_reference_bit_for_bit(
    variants: tuple[kernels.Variant, ...], case: Any, form: str, planes: int, terms: set[str], seed: int
) -> None:
    (geometry, batch, height, width), draw = case, Draw(seed)
    n, c = geometry.out_channels, geometry.in_channels
    bits, x = weight_bits(geometry, draw), draw.image(batch, c, height, width)
    if planes > 1:
        form = "nchw" if form == "words" else form
        terms = terms - {"window_scale"}
    tau = draw.real(planes, c) if planes > 1 else draw.real(c) if "threshold" in terms else None
    x, tau = in_form(x, form, tau)
    shape = (batch, n, *geometry.output_size(height, width))
    options: dict[str, Any] = {
        "threshold": tau,
        "zero_one": "zero_one" in terms,
        "window_scale": draw.real(n) if "window_scale" in terms else None,
        "border": draw.real(2, n) if "border" in terms else None,
        "residual": draw.real(*shape) if "residual" in terms else None,
        "activation": draw.real(4, n) if "activation" in terms else None,
        "activation_first": "activation_first" in terms,
    }
    scale, shift = draw.real(planes, n) if planes > 1 else draw.real(n), draw.real(n)
    following = draw.real(n)
    expected = reference.conv_affine(x, bits, geometry, scale, shift, **options)
    words = reference.below(expected, following)
    sizes = operators.sizes_of(geometry)
    for variant in variants:
        with kernels.use(variant.name):
            got = call.conv(x, bits, sizes, scale, shift, **options)
            assert torch.equal(got, expected), variant.name
            both = call.conv_and_bits(x, bits, sizes, scale, shift, following, **options)
            assert torch.equal(both[0], expected) and torch.equal(both[1], words), variant.name


@CASES
@given(
    st.integers(1, 1030),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 12),
    FORMS,
    st.integers(0, 2**31),
)
def test_packing_equals_the_comparison(
    variants: tuple[kernels.Variant, ...], c: int, n: int, h: int, w: int, form: str, seed: int
) -> None:
    draw = Draw(seed)
    x, tau = draw.image(n, c, h, w), draw.real(c)
    x = x.contiguous(memory_format=torch.channels_last) if form == "nhwc" else x
    expected = x < tau.view(1, -1, 1, 1)
    for variant in variants:
        with kernels.use(variant.name):
            words = call.pack(x, tau)
            assert torch.equal(unpack_words(words, c).permute(0, 3, 1, 2), expected), variant.name
            assert torch.equal(words, pack_words(expected.permute(0, 2, 3, 1))), variant.name


@pytest.mark.parametrize("k", [65_536 + 40, 300_000])
def test_long_filters_do_not_overflow_a_counter(variants: tuple[kernels.Variant, ...], k: int) -> None:
    x, bits = -torch.ones(3, k), pack_bits(torch.zeros(2, k, dtype=torch.bool))
    for variant in variants:
        with kernels.use(variant.name):
            y = operators.linear(x, bits, torch.ones(2), torch.zeros(2))
            assert torch.equal(y, torch.full((3, 2), -float(k))), variant.name


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("threads", [2, 3])
def test_result_does_not_depend_on_the_number_of_threads(
    variants: tuple[kernels.Variant, ...], threads: int, batch: int
) -> None:
    geometry, draw = Geometry(70, 130, (3, 3), padding=(1, 1, 1, 1)), Draw(batch)
    bits, x = weight_bits(geometry, draw), draw.real(batch, 70, 13, 11)
    scale, shift, before = draw.real(130), draw.real(130), torch.get_num_threads()
    arguments = (x, bits, operators.sizes_of(geometry), scale, shift)
    expected = reference.conv_affine(x, bits, geometry, scale, shift, window_scale=scale)
    try:
        torch.set_num_threads(threads)
        for variant in variants:
            with kernels.use(variant.name):
                for _ in range(20):
                    assert torch.equal(call.conv(*arguments, window_scale=scale), expected), variant.name
    finally:
        torch.set_num_threads(before)


def test_kernels_work_in_a_forked_child_and_from_two_threads_at_once() -> None:
    program = """
import os, sys, threading, torch
from binarize.packed import ops
from binarize.kernels.bits import pack_bits
torch.set_num_threads(2)
x, w = torch.randn(64, 96), torch.randn(70, 96)
sign = lambda t: torch.where(t < 0, -1.0, 1.0)
expected = sign(x) @ sign(w).T
arguments = (x, pack_bits(w < 0), torch.ones(70), torch.zeros(70))
def check():
    for _ in range(200):
        assert torch.equal(ops.linear(*arguments), expected)
check()
both = [threading.Thread(target=check) for _ in range(2)]
[t.start() for t in both]; [t.join() for t in both]
child = os.fork()
if child == 0:
    check()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_forced_variant_runs_and_an_unknown_one_is_named(variants: tuple[kernels.Variant, ...]) -> None:
    for name in [variant.name for variant in variants]:
        with kernels.use(name):
            assert kernels.active() is not None and kernels.active().name == name
    with kernels.use("reference"):
        assert kernels.active() is None
    with pytest.raises(UsageError, match='did you mean "scalar"'), kernels.use("scaler"):
        pass
