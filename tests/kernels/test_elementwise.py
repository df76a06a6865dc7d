"""Elementwise kernels against the formulas they stand for, in float64, on every variant of this processor."""

from __future__ import annotations

import pytest
import torch

from binarize.binarizers.bireal import ApproxSign
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.irnet import Ede
from binarize.kernels import elementwise, native, variants
from binarize.kernels.bits import pack_bits
from binarize.kernels.buffers.layout import make_layout
from binarize.kernels.geometry import Geometry

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 2), (2, 16, 4, 4), (4, 33, 3, 3), (2, 3, 40, 41)]
ESTIMATORS = [SteSign(0.7), ApproxSign(), Ede(), Ede(2.5, 1.0)]


@pytest.fixture(params=[variant.name for variant in variants.variants()])
def variant(request):
    with variants.use(request.param):
        yield variants.active()


@pytest.fixture(params=SHAPES, ids=str)
def pair(request):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(request.param, generator=generator) for _ in range(2)]


def test_split_has_the_first_value_below_the_centre_alone(variant, pair):
    x = pair[0]
    x.view(-1)[0] = -0.0
    assert torch.equal(elementwise.split(x, elementwise.whole(x)), torch.where(x < 0, -1.0, 1.0))
    centre, values = torch.tensor([0.3]), (torch.tensor([2.0]), torch.tensor([5.0]))
    got = elementwise.split(x, elementwise.whole(x), centre, values)
    assert torch.equal(got, torch.where(x < 0.3, 2.0, 5.0))


def test_rows_have_statistics_of_their_own(variant, pair):
    w = pair[0]
    wide = w.double().flatten(1)
    rows = elementwise.filter_rows(w)
    mean, deviation = elementwise.deviations(w, rows)
    torch.testing.assert_close(
        elementwise.magnitudes(w, rows).double(), wide.abs().mean(1), rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(deviation.double(), wide.std(1, correction=0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{type(e).__name__}-{e.formula().a:g}")
def test_estimate_is_the_gradient_times_the_derivative(variant, pair, estimator):
    x, g = pair
    centre, radius, divisor = torch.tensor([0.2]), torch.tensor([1.5]), torch.tensor([3.0])
    options = {"centre": centre, "radius": radius, "divisor": divisor, "wants_sums": True}
    dx, sums = elementwise.estimate(x, g, elementwise.whole(x), estimator.formula(), **options)
    z, wide = (x.double() - centre.double()) / 1.5, g.double() / 3
    expected = estimator.to(torch.float64).derivative(z) * wide
    estimator.to(torch.float32)
    torch.testing.assert_close(dx.double(), expected, rtol=1e-5, atol=1e-6)
    sign = torch.where(z < 0, -1.0, 1.0)
    totals = torch.stack([wide.sum(), expected.sum(), (sign * wide - z * expected).sum()])
    torch.testing.assert_close(sums[:, :3].sum(0), totals, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("through_filter", [False, True])
def test_a_gradient_may_be_written_over(variant, pair, through_filter):
    w, g = pair
    rows = elementwise.filter_rows(w)
    mean, deviation = elementwise.deviations(w, rows)
    options = {"centre": mean, "radius": deviation.clamp_min(1e-8), "through_filter": through_filter}
    formula, given = elementwise.Formula.decay(1.0, 1.0), g.clone()
    expected, _ = elementwise.estimate(w, g, rows, formula, **options)
    assert torch.equal(g, given) and expected.data_ptr() != g.data_ptr()
    with elementwise.overwriting([g]):
        dx, _ = elementwise.estimate(w, g, rows, formula, **options)
    assert dx.data_ptr() == g.data_ptr() and torch.equal(dx, expected)


def test_a_nan_stays_one_in_the_triangular_gradient(variant):
    x = torch.tensor([[float("nan"), 0.5]])
    dx, _ = elementwise.estimate(x, torch.ones(1, 2), elementwise.whole(x), ApproxSign().formula())
    assert dx[0, 0].isnan() and dx[0, 1] == 1


@pytest.mark.parametrize("negative_at_zero", [False, True])
def test_bent_lines_and_their_gradients(variant, pair, negative_at_zero):
    x, g = pair
    channels = x.shape[1]
    generator = torch.Generator().manual_seed(1)
    positive, negative = torch.rand((2, channels), generator=generator) - torch.tensor([[-0.5], [0.5]])
    centre, post = torch.randn((2, channels), generator=generator)
    x[:, 0] = centre[0]
    rows = elementwise.plane_rows(x, 1)
    wide = [t.double().view(1, -1, 1, 1).requires_grad_() for t in (positive, negative, centre, post)]
    z = x.double() - wide[2]
    slope = torch.where(z > 0, wide[0], wide[1])
    y = slope * z + wide[3]
    got = elementwise.bend(x, rows, positive, negative, centre, post)
    torch.testing.assert_close(got.double(), y.detach(), rtol=1e-5, atol=1e-6)
    dx, sums = elementwise.unbend(x, g, rows, positive, negative, centre, negative_at_zero=negative_at_zero)
    expected = slope.detach() * g
    if not negative_at_zero:
        expected[z == 0] = 0
    torch.testing.assert_close(dx.double(), expected, rtol=1e-5, atol=1e-6)
    by_torch = torch.autograd.grad(y, wide[:2], g.double())
    for row, gradient in zip(sums, by_torch):
        torch.testing.assert_close(row, gradient.view(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[2], g.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums[3], dx.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["planes", "pixels", "tokens"])
class TestChannels:
    """Numbers of each channel, wherever in memory it lies, in each type that values of layers have."""

    @pytest.fixture(autouse=True)
    def placed(self, variant, pair, layout, dtype):
        generator = torch.Generator().manual_seed(1)
        channels = pair[0].shape[1]
        self.centre, self.a, self.b, self.c = torch.randn((4, channels), generator=generator)
        self.a, self.b = self.a.abs() + 0.5, -self.b.abs() - 0.25
        self.channel_dim = -1 if layout == "tokens" else 1
        self.x, self.g = (t.to(dtype) for t in pair)
        self.x[:, 0] = self.centre[0] = 0.25
        if layout == "pixels":
            self.x, self.g = (t.contiguous(memory_format=torch.channels_last) for t in (self.x, self.g))
        elif layout == "tokens":
            self.x, self.g = (t.permute(0, 2, 3, 1).contiguous() for t in (self.x, self.g))
        self.rows = elementwise.plane_rows(self.x, self.channel_dim)
        self.others = [i for i in range(4) if i != self.channel_dim % 4]
        # Half a unit in the last place of what is written; float32 has the order of sums besides.
        self.near = {"rtol": 2**-8, "atol": 1e-6} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
        self.sums_near = {"rtol": 1e-4, "atol": 1e-3}

    def wide(self, numbers):
        shape = [1] * 4
        shape[self.channel_dim] = -1
        return numbers.double().view(shape)

    def summed(self, values):
        return values.sum(self.others)

    def assert_written(self, got, expected):
        assert got.dtype == self.x.dtype and got.stride() == self.x.stride()
        torch.testing.assert_close(got.double(), expected, **self.near)

    def test_split(self):
        got = elementwise.split(self.x, self.rows, self.centre, (self.b, self.a))
        below = self.x.double() < self.wide(self.centre)
        self.assert_written(got, torch.where(below, self.wide(self.b), self.wide(self.a)))

    @pytest.mark.parametrize("estimator", ESTIMATORS[:3], ids=lambda e: type(e).__name__)
    def test_estimate(self, estimator):
        dx, sums = elementwise.estimate(
            self.x, self.g, self.rows, estimator.formula(), centre=self.centre, radius=self.a, divisor=self.a,
            wants_sums=True,
        )  # fmt: skip
        z = (self.x.double() - self.wide(self.centre)) / self.wide(self.a)
        gradient = self.g.double() / self.wide(self.a)
        expected = estimator.to(torch.float64).derivative(z) * gradient
        estimator.to(torch.float32)
        self.assert_written(dx, expected)
        by_channel = sums.view(-1, len(self.a), 4).sum(0)
        for k, values in enumerate(
            (gradient, expected, torch.where(z < 0, -gradient, gradient) - z * expected)
        ):
            torch.testing.assert_close(by_channel[:, k], self.summed(values), **self.sums_near)

    @pytest.mark.parametrize("negative_at_zero", [False, True])
    def test_bend_and_unbend(self, negative_at_zero):
        z, g = self.x.double() - self.wide(self.centre), self.g.double()
        slope = torch.where(z > 0, self.wide(self.a), self.wide(self.b))
        y = elementwise.bend(self.x, self.rows, self.a, self.b, self.centre, self.c)
        self.assert_written(y, slope * z + self.wide(self.c))
        dx, sums = elementwise.unbend(
            self.x, self.g, self.rows, self.a, self.b, self.centre, negative_at_zero=negative_at_zero
        )
        expected = slope * g if negative_at_zero else torch.where(z == 0, 0.0, slope * g)
        assert (z == 0).any()
        self.assert_written(dx, expected)
        for found, values in zip(sums, ((g * z).where(z > 0, 0), (g * z).where(z < 0, 0), g, expected)):
            torch.testing.assert_close(found, self.summed(values), **self.sums_near)


def test_bfloat16_is_rounded_to_even_and_keeps_nan_and_infinity(variant):
    # Halfway between two neighbours, a little beyond, the largest, and what is no number.
    wide = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-16, 3.4e38, float("inf"), float("nan"), -0.0]
    )
    factor = torch.ones(1)
    x = torch.ones(7, 3).bfloat16()
    for value in wide.tolist():
        got = elementwise.bend(x, elementwise.whole(x), factor, factor, None, torch.tensor([value - 1]))
        expected = torch.full((7, 3), value - 1 + 1).bfloat16()
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_planes_are_the_image_made_contiguous(variant, pair):
    x = pair[0].contiguous(memory_format=torch.channels_last)
    got = elementwise.planes(x)
    assert torch.equal(got, pair[0]) and got.is_contiguous()


def test_results_do_not_depend_on_the_variant_or_on_the_threads():
    generator = torch.Generator().manual_seed(1)
    w, g = torch.randn(37, 9, 5, 5, generator=generator), torch.randn(37, 9, 5, 5, generator=generator)
    rows, found, before = elementwise.filter_rows(w), [], torch.get_num_threads()
    for name in (v.name for v in variants.variants()):
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with variants.use(name):
                mean, radius = elementwise.deviations(w, rows)
                options = {"centre": mean, "radius": radius, "through_filter": True}
                dx, _ = elementwise.estimate(w, g, rows, Ede().formula(), **options)
                found.append(torch.cat([mean, radius, dx.flatten()]))
    torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (70, 33, 3, 3), (65, 64, 1, 1), (33, 100, 5, 4), (2, 31, 1, 7)]
)
def test_the_layout_of_real_weights_is_that_of_their_bits(variant, shape):
    generator = torch.Generator().manual_seed(2)
    w, threshold = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
    geometry = Geometry(shape[1], shape[0], shape[2:])
    got = native.layout_of(w, threshold, geometry, variant)
    expected = make_layout(pack_bits(w < threshold.view(-1, 1, 1, 1)), geometry, variant)
    assert torch.equal(got.data, expected.data.reshape(-1).view(torch.int32))
    assert torch.equal(got.corner_sums, expected.corner_sums) and torch.equal(got.starts, expected.starts)
    assert (got.span, got.masked) == (expected.span, expected.masked)


@pytest.mark.parametrize(
    "x", [torch.randn(3, dtype=torch.float64), torch.randn(4, 6)[:, ::2], torch.randn(0)]
)
def test_other_tensors_are_left_to_torch(x):
    assert elementwise.whole(x) is None


def test_weights_in_bfloat16_are_left_to_torch():
    assert elementwise.filter_rows(torch.randn(4, 6).bfloat16()) is None


@pytest.mark.parametrize(
    "x, channel_dim",
    [
        (torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), -1),
        (torch.randn(2, 3, 4, 5).transpose(1, 3), 1),
        (torch.randn(5), 1),
    ],
)
def test_channels_that_lie_otherwise_are_left_to_torch(x, channel_dim):
    assert elementwise.plane_rows(x, channel_dim) is None
