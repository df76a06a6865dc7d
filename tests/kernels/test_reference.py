"""The reference against sums written out by hand, and against the float layers it stands for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from binarize.errors import UsageError
from binarize.kernels import reference
from binarize.kernels.bits import pack_bits, unpack_words
from binarize.kernels.geometry import Geometry


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, -1.0, 1.0)


def test_dot_is_k_minus_two_popcounts() -> None:
    x = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    w = torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1)
    assert reference.dot(x < 0, pack_bits(w < 0), Geometry(3, 1)).item() == 3 - 2 * 1


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_dot_by_hand_over_a_padded_dilated_strided_grouped_window(pad_value: int) -> None:
    geometry = Geometry(4, 6, (2, 3), (2, 1), (1, 0, 2, 1), (1, 2), 2, pad_value)
    x, w = randn(2, 4, 5, 6), randn(*geometry.weight_shape, seed=1)
    got = reference.dot(x < 0, pack_bits(w < 0), geometry)
    height, width = geometry.output_size(5, 6)
    assert got.shape == (2, 6, height, width)
    for n, o, y, z in itertools.product(range(2), range(6), range(height), range(width)):
        total = 0
        for i, ky, kx in itertools.product(range(2), range(2), range(3)):
            row, col = 2 * y + ky - 1, z + 2 * kx - 2
            inside = 0 <= row < 5 and 0 <= col < 6
            value = sign(x)[n, 2 * (o // 3) + i, row, col].item() if inside else pad_value
            total += value * sign(w)[o, i, ky, kx].item()
        assert got[n, o, y, z].item() == total


def test_zero_one_input_counts_only_the_upper_values() -> None:
    geometry = Geometry(5, 3, (3, 3), padding=(1, 1, 1, 1))
    x, w = randn(1, 5, 4, 4), randn(*geometry.weight_shape, seed=1)
    expected = functional.conv2d((x >= 0).float(), sign(w), padding=1).int()
    assert torch.equal(reference.dot(x < 0, pack_bits(w < 0), geometry, zero_one=True), expected)


def test_zero_and_nan_and_the_threshold_itself_are_upper() -> None:
    x = torch.tensor([0.0, -0.0, float("nan"), -float("nan"), 2.0]).view(1, 5, 1, 1)
    threshold = torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0])
    (mask,) = reference.input_masks(x, Geometry(5, 1), threshold)
    assert not mask.any()


@pytest.mark.parametrize("pad", [0, 1])
def test_two_level_weight_and_input_equal_the_float_convolution(pad: int) -> None:
    """sum (b_w + a_w s_w)(b_a + a_a s_a) = a_w a_a dot + b_w a_a Sa + a_w b_a Sw + b_w b_a n."""
    geometry = Geometry(6, 4, (3, 3), padding=(pad,) * 4)
    x, w = randn(2, 6, 5, 5), randn(*geometry.weight_shape, seed=1)
    a_w, b_w, a_a, b_a = randn(4, seed=2).abs(), randn(4, seed=3), 0.7, -0.3
    two_level = b_w.view(-1, 1, 1, 1) + a_w.view(-1, 1, 1, 1) * sign(w)
    expected = functional.conv2d((b_a + a_a * sign(x)).double(), two_level.double(), padding=pad)
    got = reference.conv_affine(
        x, pack_bits(w < 0), geometry, a_w * a_a, torch.zeros(4),
        window_scale=b_w * a_a, border=torch.stack([a_w * b_a, b_w * b_a]),
    )  # fmt: skip
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_bit_planes_add_up_from_the_first_to_the_last() -> None:
    geometry = Geometry(8, 4)
    x, w, scale = randn(1, 8, 3, 3), randn(4, 8, 1, 1, seed=1), randn(3, 4, seed=2)
    threshold = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1).expand(3, 8)
    parts = [functional.conv2d(sign(x - t), sign(w)) * s.view(1, -1, 1, 1) for t, s in zip((-1, 0, 1), scale)]
    got = reference.conv_affine(x, pack_bits(w < 0), geometry, scale, torch.zeros(4), threshold=threshold)
    assert torch.equal(got, parts[0] + parts[1] + parts[2])


def test_piecewise_is_prelu_rprelu_and_maxout() -> None:
    y, slope, shift, out = randn(2, 3, 4, 4), *(randn(3, seed=s) for s in (1, 2, 3))
    zero, one, column = torch.zeros(3), torch.ones(3), (1, -1, 1, 1)
    prelu = reference.piecewise(y, torch.stack([zero, one, slope, zero]))
    assert torch.equal(prelu, functional.prelu(y, slope))
    rprelu = reference.piecewise(y, torch.stack([-shift, one, slope, out]))
    assert torch.equal(rprelu, functional.prelu(y - shift.view(column), slope) + out.view(column))
    maxout = reference.piecewise(y, torch.stack([zero, out, slope, zero]))
    assert torch.equal(maxout, out.view(column) * y.relu() - slope.view(column) * (-y).relu())


def test_residual_and_activation_come_in_the_order_asked_for() -> None:
    geometry = Geometry(4, 4)
    x, w, residual = randn(1, 4, 2, 2), randn(4, 4, 1, 1, seed=1), randn(1, 4, 2, 2, seed=2)
    activation = randn(4, 4, seed=3)
    call = {"scale": randn(4, seed=4), "shift": randn(4, seed=5)}
    plain = reference.conv_affine(x, pack_bits(w < 0), geometry, **call)
    after = reference.conv_affine(
        x, pack_bits(w < 0), geometry, **call, residual=residual, activation=activation
    )
    before = reference.conv_affine(
        x, pack_bits(w < 0), geometry, **call, residual=residual, activation=activation, activation_first=True
    )
    assert torch.equal(after, reference.piecewise(plain + residual, activation))
    assert torch.equal(before, reference.piecewise(plain, activation) + residual)


def test_below_gives_bit_1_under_the_limit_and_flip_inverts_a_channel() -> None:
    values = torch.tensor([[3, 3, 3]], dtype=torch.int32).view(1, 3, 1, 1)
    limit = torch.tensor([3, 4, 4], dtype=torch.int32)
    words = reference.below(values, limit, torch.tensor([0b100], dtype=torch.int32))
    assert unpack_words(words, 3).flatten().tolist() == [False, True, False]


def test_impossible_geometry_says_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="do not divide into 3 groups"):
        Geometry(4, 6, groups=3)
    with pytest.raises(UsageError, match="pad_value 2"):
        Geometry(4, 6, pad_value=2)
    with pytest.raises(UsageError, match=r"4x4 padded by .* smaller than the window"):
        Geometry(4, 6, (5, 5)).output_size(4, 4)
