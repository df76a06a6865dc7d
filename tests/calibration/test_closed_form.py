"""Scales, shifts and signs on numbers one can check by hand."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from binarize.binarizers.adabin import AdaptiveWeight
from binarize.binarizers.bireal import ScaledSign
from binarize.binarizers.xnorpp import ChannelScale
from binarize.calibration.closed_form import affine, fit_classifier, fit_layer, fit_with_shortcut
from binarize.calibration.signs import descend, search_signs
from binarize.calibration.thresholds import split_point
from binarize.layers.conv import BinaryConv2d
from binarize.layers.linear import BinaryLinear


def test_least_squares_finds_the_line_and_variance_its_spread() -> None:
    u = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    scale, shift, alive = affine(u, 2 * u - 1, 1)
    torch.testing.assert_close((scale, shift), (torch.tensor([2.0]).double(), torch.tensor([-1.0]).double()))
    assert alive.all()
    # Reversed, the line falls.
    torch.testing.assert_close(affine(u, -u, 1)[0], torch.tensor([-1.0]).double())
    torch.testing.assert_close(affine(u, -u, 1, "variance")[0], torch.tensor([-1.0]).double())
    # Least squares shrinks what is only partly alike; variance keeps the spread.
    alike = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    t = alike + torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    torch.testing.assert_close(affine(alike, t, 1)[0], torch.tensor([1.0]).double())
    torch.testing.assert_close(affine(alike, t, 1, "variance")[0], torch.tensor([2.0]).double().sqrt())


def test_a_constant_channel_gets_the_float_mean() -> None:
    scale, shift, alive = affine(torch.full((4, 1), 5.0), torch.tensor([[0.0], [1.0], [2.0], [3.0]]), 1)
    assert not alive.any() and scale.item() == 1.0
    assert scale.item() * 5.0 + shift.item() == 1.5


def test_the_classifier_is_refitted_exactly_where_that_is_possible() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(64, 3, generator=generator)
    layer = nn.Linear(3, 2)
    wanted = h @ torch.tensor([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]]) + torch.tensor([1.0, -1.0])
    assert fit_classifier(layer, h, wanted, ridge=1e-9)
    torch.testing.assert_close(layer(h), wanted, rtol=1e-4, atol=1e-4)


def test_a_classifier_with_too_few_images_stays() -> None:
    layer = nn.Linear(8, 2)
    before = layer.weight.detach().clone()
    assert not fit_classifier(layer, torch.ones(16, 8), torch.zeros(16, 2))
    assert torch.equal(layer.weight, before)


def test_a_layer_without_a_norm_is_scaled_through_its_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = BinaryLinear.from_float(nn.Linear(6, 4), weight_binarizer=ScaledSign())
    x = torch.randn(50, 6, generator=generator)
    with torch.no_grad():
        wanted = layer(x) * torch.tensor([0.5, -2.0, 3.0, 1.0]) + 0.25
        assert fit_layer(layer, layer(x), wanted, "least-squares")
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)


def test_two_parts_are_cut_between_them() -> None:
    rows = torch.tensor([[0.0, 0.0, 1.0, 9.0, 10.0], [4.0, 4.0, 4.0, 4.0, 4.0]])
    torch.testing.assert_close(split_point(rows), torch.tensor([5.0, 4.0]).double())


def test_descent_ends_where_no_single_flip_helps() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    gram = x.t() @ x / 200
    cross = torch.randn(3, 6, generator=generator)
    start = torch.ones(3, 6)
    found = descend(start, gram, cross)

    def score(b: torch.Tensor, c: torch.Tensor) -> float:
        return float((b @ c).clamp_min(0) ** 2 / (b @ gram @ b))

    for b, c in zip(found, cross):
        assert score(b, c) >= score(torch.ones(6), c)
        for j in range(6):
            flipped = b.clone()
            flipped[j] = -flipped[j]
            assert score(flipped, c) <= score(b, c) * (1 + 1e-5)


def test_descent_finds_the_best_of_all_signs_when_inputs_are_independent() -> None:
    cross = torch.tensor([[0.5, -1.0, 2.0, -0.1]])
    found = descend(torch.ones(1, 4), torch.eye(4), cross)
    best = max(itertools.product((-1.0, 1.0), repeat=4), key=lambda b: (torch.tensor(b) @ cross[0]).item())
    assert found[0].tolist() == list(best)


def test_descent_keeps_no_flip_that_other_images_speak_against() -> None:
    generator = torch.Generator().manual_seed(0)
    x, others = torch.randn(20, 30, generator=generator), torch.randn(500, 30, generator=generator)
    start = torch.where(torch.rand(8, 30, generator=generator) < 0.5, -1.0, 1.0)
    # The start is the truth, and most of what few images say is noise.
    noise = 10 * torch.randn(520, 8, generator=generator)
    seen, judge = (
        (a.t() @ a / len(a), (a @ start.t() + n).t() @ a / len(a))
        for a, n in ((x, noise[:20]), (others, noise[20:]))
    )

    def fraction(b: torch.Tensor, gram: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
        product = (b * cross).sum(1)
        return product * product.abs() / (b * (b @ gram)).sum(1)

    blind, judged = descend(start, *seen), descend(start, *seen, judge)
    assert (fraction(judged, *judge) >= fraction(start, *judge) * (1 - 1e-5)).all()
    assert (fraction(judged, *judge) >= fraction(blind, *judge) * (1 - 1e-5)).all()
    assert (blind != start).sum() > 2 * (judged != start).sum()
    # Judged by what it sees, every flip is for the better.
    assert torch.equal(descend(start, *seen, seen), blind)


def test_a_search_recovers_the_filters_that_made_the_output() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 3, 3, padding=1, groups=1, bias=False)
    layer = BinaryConv2d.from_float(conv, weight_binarizer=ScaledSign())
    true = torch.where(torch.rand(3, 4, 3, 3, generator=generator) < 0.5, -1.0, 1.0)
    x = torch.randn(16, 4, 8, 8, generator=generator)
    wanted = nn.functional.conv2d(x, true, padding=1) * 0.7 + 2
    before = conv.weight.detach().abs().clone()
    flipped = search_signs(layer, x, wanted)
    assert flipped is not None and flipped > 0
    assert torch.equal(layer.weight.detach().sign(), true)
    torch.testing.assert_close(
        layer.weight.detach().abs(), before.clamp_min(1e-3 * float(before.mean())), rtol=0, atol=1e-2
    )


def test_a_filter_of_far_more_weights_than_samples_is_not_searched() -> None:
    layer = BinaryLinear.from_float(nn.Linear(64, 3, bias=False), weight_binarizer=ScaledSign())
    x, wanted = torch.randn(8, 64), torch.randn(8, 3)
    before = layer.weight.detach().clone()
    assert search_signs(layer, x[:7], wanted[:7]) is None
    assert torch.equal(layer.weight, before)
    assert search_signs(layer, x, wanted) is not None


def test_a_search_leaves_the_weights_around_a_centre_their_distances() -> None:
    """All alike, they would flip together or not at all in a training that follows."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 3, 3, padding=1, bias=False)
    layer = BinaryConv2d.from_float(conv, weight_binarizer=AdaptiveWeight())
    true = torch.where(torch.rand(3, 4, 3, 3, generator=generator) < 0.5, -1.0, 1.0)
    before = conv.weight.detach().flatten(1)
    before = (before - before.mean(1, keepdim=True)).abs()
    x = torch.randn(16, 4, 8, 8, generator=generator)
    assert search_signs(layer, x, nn.functional.conv2d(x, true, padding=1))
    after = layer.weight.detach().flatten(1)
    torch.testing.assert_close(after.sign(), true.flatten(1))
    torch.testing.assert_close(after.mean(1), torch.zeros(3), rtol=0, atol=1e-6)
    for row, old, signs in zip(after.abs(), before, true.flatten(1)):
        for side in (1.0, -1.0):
            ratios = (row / old)[signs == side]
            torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-3, atol=0)


def test_a_norm_and_the_factor_of_a_shortcut_are_fitted_together() -> None:
    generator = torch.Generator().manual_seed(0)
    z, v = (torch.randn(16, 3, 4, 4, generator=generator) for _ in range(2))
    norm, shortcut = nn.BatchNorm2d(3).eval(), ChannelScale(3)
    a, s, b = (
        torch.tensor(numbers).view(1, 3, 1, 1)
        for numbers in ([2.0, -1.0, 0.0], [0.5, 0.0, -3.0], [1.0, 2.0, 3.0])
    )
    # A shortcut that follows from the layer's own output, as it does where both are constant, says nothing.
    v[:, 1] = 3 * z[:, 1]
    wanted = a * z + s * v + b
    with torch.no_grad():
        fit_with_shortcut(norm, z, shortcut, v, wanted)
        torch.testing.assert_close(norm(z) + shortcut(v), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shortcut.s.detach(), torch.tensor([0.5, 1.0, -3.0]), rtol=1e-4, atol=1e-4)
