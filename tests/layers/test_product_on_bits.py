"""The packed forward pass of training layers: the float path's results, and its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import binarize
from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight
from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.binarizers.bnn import SteSign
from binarize.binarizers.reactnet import RSign
from binarize.errors import UsageError
from binarize.kernels import variants
from binarize.layers.classes import binary_class
from binarize.layers.layer import BinaryLayer, Threshold

pytestmark = pytest.mark.skipif(
    variants.active(needed=False) is None, reason="the native kernels are not built"
)

LAYERS = {
    "plain": (lambda: nn.Conv2d(40, 33, 3, padding=1), (2, 40, 9, 7)),
    "strided": (lambda: nn.Conv2d(32, 64, 3, stride=2, padding=(2, 0), dilation=(1, 2)), (1, 32, 12, 11)),
    "same": (lambda: nn.Conv2d(5, 6, 4, padding="same"), (2, 5, 8, 8)),
    "1x1": (lambda: nn.Conv2d(64, 17, 1, bias=False), (3, 64, 5, 5)),
    "1d": (lambda: nn.Conv1d(33, 8, 5, padding=2), (2, 33, 20)),
    "linear": (lambda: nn.Linear(70, 31), (4, 70)),
    "sequence": (lambda: nn.Linear(64, 8), (2, 5, 64)),
}
ALL = pytest.mark.parametrize("name", LAYERS)


def both_ways(layer: BinaryLayer, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """[output, gradients at the input and the parameters] without and with bits."""
    found = []
    for mode in ("off", "on"):
        one, own = copy.deepcopy(layer), x.clone().requires_grad_()
        assert binarize.use_packed_forward(one, mode) == 1
        y = one(own)
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
        found.append([y.detach(), own.grad, *(p.grad for p in one.parameters())])
    return found


@ALL
@pytest.mark.parametrize("front", ["none", "threshold", "rsign"])
def test_plus_and_minus_one_give_the_same_bits_and_gradients(name: str, front: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    float_layer, x = make(), torch.randn(shape)
    dim = -1 if isinstance(float_layer, nn.Linear) else 1
    channels = shape[dim]
    threshold = Threshold(channels, dim) if front == "threshold" else None
    binarizer = RSign(channels, dim) if front == "rsign" else SteSign() if name == "1d" else ApproxSign()
    options = {"weight_binarizer": ScaledSign(), "input_binarizer": binarizer, "threshold": threshold}
    layer = binary_class(float_layer).from_float(float_layer, **options)
    for tau in (getattr(threshold, "tau", None), getattr(binarizer, "tau", None)):
        if tau is not None:
            nn.init.normal_(tau)
    for off, on in zip(*both_ways(layer, x), strict=True):
        assert torch.equal(off, on)


@ALL
@pytest.mark.parametrize("form", ["paper", "code"])
def test_free_levels_give_the_same_up_to_rounding(name: str, form: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    float_layer, x = make(), torch.randn(shape)
    binarizer = AdaptiveInput(form=form)
    layer = binary_class(float_layer).from_float(
        float_layer, weight_binarizer=AdaptiveWeight(), input_binarizer=binarizer
    )
    nn.init.constant_(binarizer.alpha, -0.7)
    nn.init.constant_(binarizer.beta, 0.3)
    off, on = both_ways(layer, x)
    torch.testing.assert_close(on[0], off[0], rtol=1e-5, atol=1e-5)
    for before, after in zip(off[1:], on[1:], strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_result_lies_in_memory_as_torch_has_it(memory_format: torch.memory_format) -> None:
    layer = binary_class(conv := nn.Conv2d(32, 32, 3, padding=1)).from_float(
        conv, weight_binarizer=ScaledSign(), input_binarizer=ApproxSign()
    )
    x = torch.randn(2, 32, 6, 5).contiguous(memory_format=memory_format)
    results = both_ways(layer.to(memory_format=memory_format), x)
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][0].stride() == results[1][0].stride()


@pytest.mark.parametrize("pad_value", [-1, 1])
def test_padding_with_a_binary_value(pad_value: int) -> None:
    layer = binary_class(conv := nn.Conv2d(32, 32, 3, padding=1)).from_float(
        conv, weight_binarizer=ScaledSign(), input_binarizer=ApproxSign(), pad_value=pad_value
    )
    off, on = both_ways(layer, torch.randn(2, 32, 6, 5))
    assert all(torch.equal(a, b) for a, b in zip(off, on))


def test_without_gradients_only_what_is_exact_runs_on_bits() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 6, 5)
    for weight, inputs in ((ScaledSign(), ApproxSign()), (AdaptiveWeight(), AdaptiveInput())):
        layer = binary_class(conv := nn.Conv2d(32, 32, 3, padding=1)).from_float(
            conv, weight_binarizer=weight, input_binarizer=inputs
        )
        found = []
        for mode in ("off", "on"):
            binarize.use_packed_forward(layer, mode)
            with torch.no_grad():
                found.append(layer(x))
        assert torch.equal(*found)


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(UsageError, match="'onn' is none of auto, on, off"):
        binarize.use_packed_forward(nn.ReLU(), "onn")
