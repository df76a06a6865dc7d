from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binarize.bernoulli.hardening import confident_share, harden, soft_layers
from binarize.bernoulli.layers import BernoulliConv2d, BernoulliLinear, ExpectationLinear
from binarize.bernoulli.masses import least_positives, mass_function
from binarize.binarizers.bernoulli import MaxPool, Means, Probabilities, strict_sign
from binarize.errors import UsageError
from binarize.training.loop.regularizers import uncertainty


def means(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def latents(layer: Any, seed: int = 1) -> Any:
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed)))
    return layer


def by_masses(rows: Tensor, theta: Tensor) -> Tensor:
    a = rows.double()[..., None, :] * theta.double()
    return 2 * mass_function((1 + a) / 2)[..., least_positives(a.shape[-1]) :].sum(-1) - 1


def test_a_linear_layer_hands_on_means_of_signs() -> None:
    layer, x = latents(BernoulliLinear(11, 3, forward="exact")), means(2, 5, 11)
    expected = by_masses(x, torch.tanh(layer.weight.detach() / 2))
    torch.testing.assert_close(layer(x).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), ((1, 2), (2, 1), (2, 1))])
def test_a_convolution_reads_minus_one_outside_the_image(
    stride: Any, padding: Any, dilation: Any, groups: int
) -> None:
    layer = latents(BernoulliConv2d(4, 6, (3, 2), stride, padding, dilation, groups, forward="exact"))
    x = means(2, 4, 7, 6)
    high, wide = (padding, padding) if isinstance(padding, int) else padding
    padded = F.pad(x, (wide, wide, high, high), value=-1.0)
    theta, found = torch.tanh(layer.weight.detach() / 2), layer(x)
    for group in range(groups):
        own, filters = padded.chunk(groups, 1)[group], theta.chunk(groups)[group]
        rows = F.unfold(own, (3, 2), dilation, 0, stride).transpose(1, 2)
        expected = by_masses(rows, filters.flatten(1)).transpose(1, 2)
        torch.testing.assert_close(
            found.chunk(groups, 1)[group].flatten(2).double(), expected, rtol=0, atol=1e-6
        )


def test_ways_that_know_moments_and_rows_agree_on_a_convolution() -> None:
    x = means(2, 8, 6, 6)
    found = {}
    for way in ("clt", "edge4", "auto", "exact"):
        layer = latents(BernoulliConv2d(8, 4, 3, 1, 1, forward=way))
        y = layer(x)
        (dw,) = torch.autograd.grad(y.square().sum(), layer.weight)
        found[way] = y, dw
    for way, error in (("clt", 2e-2), ("edge4", 5e-4), ("auto", 2e-2)):
        for one, exact in zip(found[way], found["exact"], strict=True):
            torch.testing.assert_close(one, exact, rtol=error, atol=error)


def test_an_expectation_is_the_product_of_means() -> None:
    layer, x = latents(ExpectationLinear(7, 3)), means(4, 7)
    torch.testing.assert_close(layer(x), x @ torch.tanh(layer.weight / 2).t())


def test_centring_compares_with_the_mean_of_the_batch_and_remembers_it() -> None:
    layer, x = latents(BernoulliLinear(50, 4, forward="clt", centring=True)), means(64, 50) + 0.5
    sums = x @ torch.tanh(layer.weight / 2).t()
    before = layer.centre.clone()
    y = layer(x)
    assert bool((y * (sums - sums.mean(0)) >= 0).all())
    torch.testing.assert_close(layer.centre, before.lerp(sums.mean(0), 0.1))
    layer.calibrate_centre(x)
    torch.testing.assert_close(layer.centre, sums.mean(0))
    assert torch.allclose(layer.eval()(x), y, atol=1e-6)


def test_a_bias_moves_the_threshold_by_deviations_of_a_fair_sum() -> None:
    layer = latents(BernoulliLinear(64, 2, forward="clt"))
    x = means(3, 64)
    before = layer(x)
    with torch.no_grad():
        layer.bias.fill_(10.0)
    assert bool((layer(x) > before).all())
    assert bool((layer(x) > 0.999).all())


def test_hard_activations_are_signs_with_a_smooth_gradient() -> None:
    layer, x = latents(BernoulliLinear(40, 6, forward="clt")), means(5, 40).requires_grad_()
    layer.hard_activations = True
    y = layer(x)
    sums = x @ torch.tanh(layer.weight / 2).t()
    assert torch.equal(y, torch.where(sums >= -1, 1.0, -1.0))
    dx, dw, db = torch.autograd.grad(y.sum(), (x, layer.weight, layer.bias))
    assert bool((dx != 0).all() and (dw != 0).all() and (db > 0).all())


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation"),
    [(2, None, 0, 1), (3, 2, 1, 1), ((2, 3), (1, 2), (1, 1), (2, 1))],
)
def test_max_pool_is_the_probability_that_any_is_positive(
    size: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    pool, x = MaxPool(size, stride, padding, dilation), means(2, 3, 7, 8)
    logs = torch.log1p(-(1 + x) / 2)
    kernel = (size, size) if isinstance(size, int) else size
    ones = torch.ones(1, 1, *kernel)
    sums = F.conv2d(logs.flatten(0, 1)[:, None], ones, None, pool.stride, padding, dilation)
    expected = 1 - 2 * sums.exp().view(2, 3, *sums.shape[2:])
    torch.testing.assert_close(pool(x), expected)
    assert pool(x).shape == F.max_pool2d(x, size, stride, padding, dilation).shape
    signs = x.sign()
    torch.testing.assert_close(pool(signs), F.max_pool2d(signs, size, stride, padding, dilation))


def test_a_weight_as_likely_one_as_the_other_is_minus_one(vectors: Any) -> None:
    v = vectors["nb_binarize_eq49"]
    assert strict_sign(torch.logit(torch.tensor(v["Wtilde"]))).tolist() == v["Wb"]


def test_frozen_weights_equal_their_vector(vectors: Any) -> None:
    v, part = vectors["nb_progressive"], Probabilities()
    logits = torch.tensor(v["logits"], dtype=torch.float64).requires_grad_()
    part.frozen = torch.tensor(v["mask"]).bool()
    p = (1 + part(logits)) / 2
    (d,) = torch.autograd.grad(p, logits, torch.tensor(v["upstream"], dtype=torch.float64))
    torch.testing.assert_close(p, torch.tensor(v["Wtilde"], dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(d, torch.tensor(v["d_logits"], dtype=torch.float64), rtol=0, atol=1e-10)
    part.frozen_gradient = "ste"
    (d,) = torch.autograd.grad(part(logits).sum(), logits)
    torch.testing.assert_close(d, 2 * torch.sigmoid(logits) * torch.sigmoid(-logits))


def test_the_regularizer_equals_its_vector(vectors: Any) -> None:
    v = vectors["r_naive_bernoulli_eq50"]
    logits = torch.tensor(v["logits"], dtype=torch.float64).requires_grad_()
    term = uncertainty(logits)
    (d,) = torch.autograd.grad(term, logits)
    assert term.item() == pytest.approx(v["R"], abs=1e-10)
    torch.testing.assert_close(d, torch.tensor(v["d_logits"], dtype=torch.float64), rtol=0, atol=1e-10)


def small_net() -> nn.Sequential:
    layers = [
        latents(BernoulliConv2d(2, 8, 3, 1, 1, forward="clt", centring=True), 3), MaxPool(2), nn.Flatten(),
        latents(BernoulliLinear(32, 6, forward="exact"), 4), latents(ExpectationLinear(6, 3), 5),
    ]  # fmt: skip
    return nn.Sequential(*layers)


def test_hardening_gives_the_signs_of_the_likelier_weights() -> None:
    net, x = small_net(), means(9, 2, 4, 4).sign()
    with torch.no_grad():
        net[0].bias.copy_(torch.linspace(-1, 1, 8))
    net(x)
    net.eval()
    conv, linear, last = net[0], net[3], net[4]
    cut = conv.centre - 18**0.5 * conv.bias
    sums = F.conv2d(F.pad(x, (1, 1, 1, 1), value=-1.0), strict_sign(conv.weight))
    hidden = F.max_pool2d(torch.where(sums > cut.view(-1, 1, 1), 1.0, -1.0), 2).flatten(1)
    hidden = torch.where(hidden @ strict_sign(linear.weight).t() >= 0, 1.0, -1.0)
    expected = hidden @ strict_sign(last.weight).t()
    assert harden(net) is net
    assert torch.equal(net(x), expected)
    # Sums have the parity of the fan-in: in the middle between two of them no sum can lie.
    assert bool((conv.bias.remainder(2) == 1).all())
    assert soft_layers(net) == []


def test_a_hardened_network_is_as_its_soft_one_where_all_is_nearly_certain() -> None:
    net, x = small_net(), means(9, 2, 4, 4).sign()
    for layer in soft_layers(net):
        with torch.no_grad():
            layer.weight.copy_(strict_sign(layer.weight) * 40)
            layer.probabilities.centring = False
    soft = net.eval()(x)
    assert confident_share(net) == 1
    torch.testing.assert_close(harden(net)(x), soft, rtol=0, atol=1e-3)


def test_a_network_without_random_signs_has_nothing_to_harden() -> None:
    with pytest.raises(UsageError, match="no layer of the model has random signs"):
        harden(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(UsageError, match="no layer of the model has random signs"):
        harden(harden(small_net()))


def test_means_pass_until_they_are_signed() -> None:
    part, x = Means(), torch.tensor([-0.4, 0.0, 0.7])
    assert part(x) is x
    part.soft.fill_(False)
    assert part(x).tolist() == [-1, 1, 1]


def test_a_start_by_confidence_keeps_the_signs_of_float_weights() -> None:
    w = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)) * 0.02
    started, part = w.clone(), Probabilities(confidence=2.0)
    part.start_from_weight(started, 0)
    torch.testing.assert_close(started, w * (2 / w.std()))
    drawn = w.clone()
    Probabilities(confidence=None).start_from_weight(drawn, 0)
    assert bool((drawn.abs() <= 7).all())
