"""A fused packed model computes what the packed one does, with fewer steps."""

from __future__ import annotations

import copy
import gc
import operator
import weakref

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import binarize
from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight, Maxout
from binarize.binarizers.bireal import ApproxSign, ScaledSign
from binarize.binarizers.reactnet import RPReLU
from binarize.errors import CaptureError
from binarize.kernels import variants
from binarize.layers.conv import BinaryConv2d
from binarize.layers.linear import BinaryLinear
from binarize.packed.freeze import freeze, pack_layers
from binarize.packed.fused.fuse import fuse
from binarize.packed.fused_conv import FusedConv


class Block(nn.Module):
    """conv, norm, add, activation, twice; the second time the activation stands before the add."""

    def __init__(self, activation: type[nn.Module], adaptive: bool) -> None:
        super().__init__()
        for name in ("first", "second"):
            conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
            weight, inputs = (AdaptiveWeight(), AdaptiveInput()) if adaptive else (ScaledSign(), ApproxSign())
            layer = BinaryConv2d.from_float(conv, weight_binarizer=weight, input_binarizer=inputs)
            setattr(self, name, layer)
            setattr(self, f"{name}_norm", nn.BatchNorm2d(32))
            bent = activation(32)
            for parameter in bent.parameters():
                nn.init.normal_(parameter)
            setattr(self, f"{name}_bent", bent)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_bent(self.first_norm(self.first(x)) + x)
        return x + self.second_bent(self.second_norm(self.second(x)))


def packed(model: nn.Module, x: Tensor) -> nn.Module:
    model.train()
    for _ in range(3):
        model(x)
    return pack_layers(freeze(model.eval(), ((x,), {})))


@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adabin"])
@pytest.mark.parametrize("activation", [Maxout, RPReLU, nn.PReLU])
def test_add_and_activation_run_in_the_layer_to_the_same_bits(activation, adaptive):
    torch.manual_seed(0)
    x = torch.randn(2, 32, 7, 9)
    model = packed(Block(activation, adaptive), x)
    fused = fuse(model, x)
    calls = [node.op for node in fused.graph.nodes if node.target is not operator.getitem]
    assert calls == ["placeholder", "call_method", "call_module", "call_module", "output"]
    first, second = (m for m in fused.modules() if isinstance(m, FusedConv))
    assert first.next_threshold is not None and second.threshold is None
    with torch.no_grad():
        assert torch.equal(fused(x), model(x))
        assert torch.equal(fused(x[:1]), model(x[:1]))


class Chain(nn.Module):
    """Four binary layers with shortcuts; the second's result is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcd":
            conv = nn.Conv2d(40, 40, 3, padding=1, bias=False)
            layer = BinaryConv2d.from_float(
                conv, weight_binarizer=ScaledSign(), input_binarizer=AdaptiveInput()
            )
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + x
        kept = self.b(x) + x
        x = self.c(kept) + kept
        return (self.d(x) + x).relu() + kept


def test_layers_pass_bits_and_overwrite_only_what_nothing_reads_later():
    torch.manual_seed(0)
    x = torch.randn(3, 40, 6, 5)
    model = packed(Chain(), x)
    fused = fuse(model, x)
    layers = [m for m in fused.modules() if isinstance(m, FusedConv)]
    assert [layer.next_threshold is not None for layer in layers] == [True, True, True, False]
    # a adds the input, which is the caller's; c adds `kept`; d gives no bits.
    assert [layer.overwrites for layer in layers] == [False, True, False, False]
    before = x.clone()
    with torch.no_grad():
        expected = model(x)
        for name in (*(variant.name for variant in variants.variants()), "reference"):
            with variants.use(name):
                for laid in (x, x.contiguous(memory_format=torch.channels_last)):
                    assert torch.equal(fused(laid), expected)
                    assert torch.equal(fused(laid[:1]), expected[:1])
    assert torch.equal(x, before)


def test_a_program_of_a_fused_model_calls_the_operators():
    torch.manual_seed(0)
    x = torch.randn(2, 40, 6, 5)
    fused = fuse(packed(Chain(), x), x)
    with torch.no_grad():
        program = torch.export.export(fused, (x,))
        names = [str(node.target) for node in program.graph.nodes if str(node.target).startswith("binarize")]
        called = ["conv_and_bits", "conv_and_bits_", "conv_and_bits", "conv"]
        assert names == [f"binarize.{name}.default" for name in called]
        assert torch.equal(program.module()(x), fused(x))


class Mlp(nn.Module):
    """Three binary linear layers: norm and activation, a shortcut, and one whose result is read as it is."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        for name, inputs, outputs in (("a", 70, 40), ("b", 40, 40), ("c", 40, 33)):
            layer = BinaryLinear.from_float(
                nn.Linear(inputs, outputs), weight_binarizer=AdaptiveWeight(), input_binarizer=AdaptiveInput()
            )
            setattr(self, name, layer)
        self.norm, self.bent = nn.BatchNorm1d(40), activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.bent(self.norm(self.a(x)))
        return self.c(self.b(x) + x)


@pytest.mark.parametrize("activation", [Maxout(40, channel_dim=-1), RPReLU(40), nn.ReLU()], ids=type)
def test_linear_layers_take_what_follows_and_pass_bits(activation):
    torch.manual_seed(0)
    x = torch.randn(5, 70)
    for parameter in activation.parameters():
        nn.init.normal_(parameter)
    model = packed(Mlp(activation), x)
    fused = fuse(model, x)
    calls = [node.op for node in fused.graph.nodes if node.target is not operator.getitem]
    assert calls == ["placeholder", "call_module", "call_module", "call_module", "output"]
    layers = [m for m in fused.modules() if isinstance(m, FusedConv)]
    assert [layer.next_threshold is not None for layer in layers] == [True, True, False]
    with torch.no_grad():
        expected = model(x)
        for name in (*(variant.name for variant in variants.variants()), "reference"):
            with variants.use(name):
                assert torch.equal(fused(x), expected)
                assert torch.equal(fused(x[:1]), expected[:1])
        program = torch.export.export(fused, (x,))
        assert torch.equal(program.module()(x), expected)


class View(Chain):
    """Some channels of the first sum are read at the end, the sum itself before."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x) + x
        some = x[:, :20]
        x = self.b(x) + x
        return (self.c(x) + x)[:, 20:] + some


def test_a_view_of_a_residual_keeps_its_values():
    torch.manual_seed(0)
    x = torch.randn(2, 40, 6, 5)
    model = packed(View(), x)
    fused = fuse(model, x)
    with torch.no_grad():
        assert torch.equal(fused(x), model(x))


def test_a_copy_has_memory_of_its_own():
    torch.manual_seed(0)
    x = torch.randn(1, 40, 6, 5)
    fused = fuse(packed(Chain(), x), x)
    with torch.no_grad():
        expected = fused(x)
        other = copy.deepcopy(fused)
        for layer in other.modules():
            if isinstance(layer, FusedConv):
                layer.shift.add_(1)
        assert not torch.equal(other(x), expected)
        assert torch.equal(fused(x), expected)
        del fused
        for layer in other.modules():
            if isinstance(layer, FusedConv):
                layer.shift.sub_(1)
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-4)


def test_what_a_layer_remembers_goes_with_it():
    torch.manual_seed(0)
    x = torch.randn(1, 40, 6, 5)
    fused = fuse(packed(Chain(), x), x)
    alive = []
    for batch in (1, 2):
        fused(x.expand(batch, -1, -1, -1))
        alive = [weakref.ref(layer.shift) for layer in fused.modules() if isinstance(layer, FusedConv)]
    del fused
    gc.collect()
    assert [tensor() for tensor in alive] == [None] * 4


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Dropout()
        self.down = nn.Sequential(nn.Conv2d(8, 5, 1, 2, bias=False), nn.BatchNorm2d(5))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.drop(self.norm(self.conv(x)).relu()))
        return self.head(y.mean((2, 3)))


def test_norms_are_folded_and_identities_dropped():
    torch.manual_seed(0)
    x, model = torch.randn(2, 3, 20, 21), Stem()
    model(x)
    fused = fuse(model.eval(), x)
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.Dropout)) for m in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x), rtol=1e-5, atol=1e-6)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_traced_is_named():
    with pytest.raises(CaptureError, match="Branch cannot be traced as a whole"):
        fuse(Branch(), torch.ones(1))


class _Viewing(nn.Module):
    """Flattens an image by `view`, which asks how it lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nets.conv(3, 16), nets.conv(), nets.conv(16, 8)
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.c(self.b(self.a(x).relu()).relu()).relu(), 4)
        return self.last(y.view(x.size(0), -1)) + y.view_as(y).mean((1, 2, 3))[:, None]


def test_views_of_images_that_lie_otherwise_in_memory() -> None:
    torch.manual_seed(0)
    x = nets.pictures(4)
    packed = pack_layers(binarize.freeze(binarize.convert(_Viewing().eval(), "bireal", example_input=x)))
    torch.testing.assert_close(binarize.fuse(packed, x)(x), packed(x), rtol=1e-4, atol=1e-4)
