from __future__ import annotations

import copy
import weakref

import pytest
import torch
from layer_tables import LAYERS, METHODS, channels, convert, made
from torch import nn

from binarize.errors import UsageError
from binarize.layers import product
from binarize.layers.layer import Threshold

torch.set_num_threads(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_plain_autograd(kind, method):
    layer, x = made(kind)
    binary = convert(layer, method, threshold=Threshold(channels(layer)[0], channels(layer)[2]))
    plain = copy.deepcopy(binary)
    # A hook on a part makes the layer keep its binary tensors instead of making them again.
    plain.weight_binarizer.register_forward_hook(lambda module, args, output: None)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = binary(ours), plain(theirs)
    assert torch.equal(y, expected)
    g = torch.randn_like(y)
    y.backward(g)
    expected.backward(g)
    # The same operations in the same order, but for the sums that make up one gradient.
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-6)
    for (name, p), (_, q) in zip(binary.named_parameters(), plain.named_parameters()):
        assert p.grad is not None, name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_saved_tensors_may_come_back_as_copies(method):
    # As they do when they are kept in another memory.
    layer, x = made("conv2d")
    binary = convert(layer, method, threshold=Threshold(4))
    twin = copy.deepcopy(binary)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y = binary(x)
    y.square().sum().backward()
    twin(x).square().sum().backward()
    for (name, p), (_, q) in zip(binary.named_parameters(), twin.named_parameters()):
        assert torch.equal(p.grad, q.grad), name


def test_parameters_changed_before_the_backward_pass_are_refused():
    layer, x = made("conv2d")
    binary = convert(layer)
    y = binary(x)
    with torch.no_grad():
        binary.input_binarizer.alpha.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = binary(x)
    binary.input_binarizer.alpha = nn.Parameter(torch.ones(1))
    with pytest.raises(UsageError, match="BinaryConv2d: its parameters were exchanged"):
        y.sum().backward()


@pytest.mark.parametrize(
    "frozen", ["weight", "input_binarizer.alpha", "all but the input", "all but the weight"]
)
def test_what_is_frozen_gets_no_gradient_and_the_rest_keeps_its_own(frozen):
    layer, x = made("conv2d")
    free = convert(layer)
    some = copy.deepcopy(free)
    x_free, x_some = x.clone().requires_grad_(), x.clone().requires_grad_(frozen != "all but the weight")
    for name, p in some.named_parameters():
        p.requires_grad_(name not in (frozen,) and not frozen.startswith("all"))
    some.weight.requires_grad_(frozen in ("input_binarizer.alpha", "all but the weight"))
    free(x_free).square().sum().backward()
    some(x_some).square().sum().backward()
    pairs = [(x_some, x_free), *zip(some.parameters(), free.parameters())]
    for ours, theirs in pairs:
        if ours.requires_grad:
            assert torch.equal(ours.grad, theirs.grad)
        else:
            assert ours.grad is None


def test_autocast_gradients_are_those_of_plain_autograd():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 6)
    model = convert(nn.Conv2d(4, 6, 3, padding=1), "bireal")
    plain = copy.deepcopy(model)
    plain.weight_binarizer.register_forward_hook(lambda module, args, output: None)
    for one in (model, plain):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = one(x)
        y.float().square().sum().backward()
    assert torch.equal(model.weight.grad, plain.weight.grad)


def kept_by_autograd(layer: nn.Module, x: torch.Tensor) -> int:
    """Bytes that are kept for the backward pass, beside x and the parameters."""
    known = {p.untyped_storage().data_ptr() for p in layer.parameters()} | {x.untyped_storage().data_ptr()}

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    alive: weakref.WeakSet[Kept] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        y = layer(x)
    assert y.requires_grad
    storages = [kept.tensor.untyped_storage() for kept in alive]
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in known}.values())


@pytest.mark.parametrize("method", ["adabin", "bireal", "bnn", "irnet weights only"])
def test_no_second_copy_of_weight_or_input_is_kept_for_the_backward_pass(method):
    torch.manual_seed(0)
    layer = convert(nn.Conv2d(16, 16, 3, padding=1, bias=False), method)
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    # At most two numbers per filter.
    assert kept_by_autograd(layer, x) <= 8 * 16


def test_large_linear_weights_are_binarized_in_slices(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(7, 24)
    for method in METHODS:
        whole = convert(nn.Linear(24, 10), method)
        sliced = copy.deepcopy(whole)
        rows = []
        plain_split = sliced.weight_binarizer.split
        sliced.weight_binarizer.split = lambda w: rows.append(len(w)) or plain_split(w)  # noqa: B023
        expected = whole(x)
        expected.square().sum().backward()
        monkeypatch.setattr(product, "SLICE", 4 * 24)
        y = sliced(x)
        y.square().sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(sliced(x), expected, rtol=0, atol=1e-5)
        monkeypatch.undo()
        # One scale for the whole layer needs the whole layer.
        assert rows == ([10] * 3 if method == "dorefa" else [4, 4, 2] * 3)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
        for (name, p), (_, q) in zip(sliced.named_parameters(), whole.named_parameters()):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-4, msg=f"{method} {name}")


@pytest.mark.parametrize("frozen", ["weight", "input", "neither"])
def test_the_gradients_of_slices_are_those_of_plain_autograd(monkeypatch, frozen):
    torch.manual_seed(0)
    x = torch.randn(7, 24, requires_grad=frozen != "input")
    monkeypatch.setattr(product, "SLICE", 4 * 24)
    for method in METHODS:
        sliced = convert(nn.Linear(24, 10), method)
        sliced.weight.requires_grad_(frozen != "weight")
        plain = copy.deepcopy(sliced)
        plain.weight_binarizer.register_forward_hook(lambda module, args, output: None)
        x.grad = None
        sliced(x).square().sum().backward()
        ours, x.grad = x.grad, None
        plain(x).square().sum().backward()
        grads = [p.grad for p in sliced.parameters()]
        for got, wanted in zip([ours, *grads], [x.grad, *(p.grad for p in plain.parameters())]):
            assert (got is None) == (wanted is None), method
            if got is not None:
                torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-4, msg=method)


def test_a_gradient_given_from_outside_stays_as_it_is():
    layer, x = made("conv2d")
    y = convert(layer)(x.requires_grad_())
    g = torch.randn_like(y)
    before = g.clone()
    y.backward(g)
    assert torch.equal(g, before)
