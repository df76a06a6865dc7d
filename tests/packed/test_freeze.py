"""Freezing: each layer against its trained self, whole networks of every scheme, frozen against packed bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from frozen_layers import INPUTS, LAYERS, TOLERANCE, WEIGHTS, assert_frozen, perturbed, randn, trained
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import binarize
from binarize.binarizers.adabin import AdaptiveInput, AdaptiveWeight, Maxout
from binarize.binarizers.ienet import OutputScale
from binarize.binarizers.xnor import MappedSign
from binarize.errors import UsageError
from binarize.layers.classes import binary_class
from binarize.layers.layer import BinaryLayer, Threshold
from binarize.packed.fold import freeze_layer
from binarize.packed.freeze import freeze, frozen_record, pack_layers
from binarize.packed.frozen.layer import FrozenLayer
from binarize.packed.layers import PackedLayer

Converted = Callable[..., nn.Module]


# --- one layer


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("weight", list(WEIGHTS))
@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.sampled(140)
def test_a_frozen_layer_computes_what_the_trained_one_does(name: str, weight: str, inputs: str) -> None:
    layer, x = trained(name, weight, inputs), randn(*LAYERS[name][1], seed=2)
    if (weight, inputs) == ("adabin", "multi"):
        why = "its filters have two free values and its input several thresholds"
        assert freeze_layer(layer) == why
        return
    assert_frozen(layer, x)


@pytest.mark.parametrize("pad_value", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("weight", ["signs", "adabin"])
def test_every_padding_is_exact(weight: str, inputs: str, pad_value: float) -> None:
    if (weight, inputs) == ("adabin", "multi"):
        return
    layer = trained("conv2d", weight, inputs, pad_value=pad_value)
    frozen = assert_frozen(layer, randn(2, 8, 3, 4, seed=2))
    one_of_two = (inputs in ("signs", "rsign") and abs(pad_value) == 1) or (inputs, pad_value) == (
        "zero one",
        1,
    )
    if one_of_two:
        assert (frozen.pad_value, frozen.outside) == (pad_value, 0)


def test_scale_bias_and_both_norms_become_one_affine_map() -> None:
    layer = trained("conv2d", "bireal", "adabin", scale=perturbed(OutputScale(6)))
    layer.scale.s.data[2] = -0.5
    assert layer.bias is not None
    layer.norm, behind = perturbed(nn.BatchNorm2d(6), 3), perturbed(nn.BatchNorm2d(6, affine=False), 4)
    frozen = assert_frozen(layer, randn(2, 8, 7, 6, seed=2), behind)
    assert [name for name, _ in frozen.named_children()] == []


def test_a_threshold_in_front_goes_into_the_comparison() -> None:
    layer = trained("conv2d", "signs", "adabin", threshold=perturbed(Threshold(8), 5))
    frozen = assert_frozen(layer, randn(2, 8, 7, 6, seed=2))
    assert frozen.front is None
    assert frozen.threshold is not None and len(frozen.threshold[0].unique()) == 8


def test_a_norm_in_front_goes_into_the_comparison_with_signs_turned_where_it_falls() -> None:
    norm = perturbed(nn.BatchNorm2d(8), 5)
    assert bool((norm.weight < 0).any())
    frozen = assert_frozen(trained("groups", "bireal", "signs", threshold=norm), randn(2, 8, 7, 6, seed=2))
    assert frozen.front is None


@pytest.mark.parametrize(
    ("weight", "inputs"), [("adabin", "signs"), ("signs", "zero one"), ("signs", "adabin")]
)
def test_a_falling_norm_stays_in_front_where_signs_cannot_turn(weight: str, inputs: str) -> None:
    norm = perturbed(nn.BatchNorm2d(8), 5)
    frozen = assert_frozen(trained("conv2d", weight, inputs, threshold=norm), randn(2, 8, 7, 6, seed=2))
    assert frozen.front is norm


def test_what_is_no_affine_map_of_a_channel_stays() -> None:
    layer = trained("tokens", "bireal", "signs", threshold=perturbed(nn.LayerNorm(8), 5))
    layer.norm, layer.activation, layer.shortcut = (
        perturbed(nn.LayerNorm(6), 6),
        Maxout(6, -1),
        nn.Linear(8, 6),
    )
    frozen = assert_frozen(layer, randn(2, 5, 8, seed=2))
    assert (frozen.front, frozen.norm) == (layer.threshold, layer.norm)
    assert (frozen.activation, frozen.shortcut) == (layer.activation, layer.shortcut)


def test_an_output_size_reaches_a_transposed_layer() -> None:
    layer, x = trained("transposed", "bireal", "adabin"), randn(2, 8, 4, 3, seed=2)
    frozen = freeze_layer(layer)
    assert isinstance(frozen, FrozenLayer)
    with torch.no_grad():
        torch.testing.assert_close(frozen(x, [7, 6]), layer(x, [7, 6]), rtol=1e-5, atol=1e-5)


def test_timms_standardized_same_convolution() -> None:
    from timm.layers import ScaledStdConv2dSame

    torch.manual_seed(0)
    conv = ScaledStdConv2dSame(8, 6, 3, 2)
    cls = binary_class(conv)
    assert cls is not None
    layer = cls.from_float(conv, weight_binarizer=AdaptiveWeight(), input_binarizer=AdaptiveInput())
    for size in (7, 8):
        assert_frozen(layer.eval(), randn(2, 8, size, size, seed=2))


class Squared(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return y * y


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weight_binarizer": nn.Identity()}, "Identity gives a filter more than two values"),
        ({"input_binarizer": nn.Tanh()}, "Tanh is no comparison with one threshold a channel"),
        ({"input_binarizer": MappedSign()}, "MappedSign multiplies by a map of its input"),
        ({"scale": Squared()}, "Squared is no factor per channel"),
    ],
)
def test_a_layer_that_cannot_be_frozen_says_why(change: dict[str, nn.Module], why: str) -> None:
    layer = trained("conv2d", "signs", "signs")
    for name, part in change.items():
        setattr(layer, name, part)
    assert freeze_layer(layer) == why


def test_a_subclass_with_a_forward_of_its_own_is_not_frozen() -> None:
    layer = trained("conv2d", "signs", "signs")
    layer.__class__ = type("Mine", (type(layer),), {})
    assert freeze_layer(layer) == "Mine has a forward of its own"


@pytest.mark.parametrize("name", ["multiply", "operand", "forward", "_finish", "binarized_input"])
def test_a_class_with_a_product_of_its_own_is_frozen_where_it_says_its_kind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = trained("conv2d", "signs", "signs")
    base = type(layer)
    unknown = type("Mine", (base,), {name: lambda self, *given: getattr(super(unknown, self), name)(*given)})
    known = type("Known", (unknown,), {"kind": "conv"})
    gain = type("Gain", (base,), {"real_weight": lambda self: 2 * super(gain, self).real_weight()})
    monkeypatch.setattr("binarize.packed.fold.BINARY_CLASSES", (unknown, known, gain))
    layer.__class__ = unknown
    assert freeze_layer(layer) == (
        "Mine has a product of its own; where it is that of a convolution or linear layer, its class says so by `kind`"
    )
    for cls in (known, gain):
        layer.__class__ = cls
        assert_frozen(layer.eval(), randn(2, layer.in_channels, 7, 7, seed=2))


# --- whole networks


def run(model: nn.Module, owner: nets.Net, seed: int = 0, n: int = 4) -> list[Tensor]:
    torch.manual_seed(seed)
    with torch.no_grad():
        output = model(*owner.arguments(n), **owner.keywords(n))
    output = vars(output) if hasattr(output, "__dataclass_fields__") else output
    return [value for value in pytree.tree_leaves(output) if isinstance(value, Tensor)]


def frozen_of(model: nn.Module) -> nn.Module:
    assert isinstance(model, nets.Net)
    return freeze(model, (model.arguments(4), model.keywords(4)))


def check_every_layer(model: nn.Module, frozen: nn.Module) -> None:
    """Each frozen layer, given what the trained one read, gives what it gave, with the norm that was folded."""
    assert isinstance(model, nets.Net)
    record = frozen_record(frozen)
    assert record is not None and not record.kept
    checked = []

    def compare(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, y: Tensor) -> None:
            expected = y if name not in record.folded else model.get_submodule(record.folded[name])(y)
            found = frozen.get_submodule(name)(*args)
            error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-20)
            assert error <= TOLERANCE, f"{name}: {error:.1e}"
            checked.append(name)

        return hook

    handles = [
        layer.register_forward_hook(compare(name))
        for name, layer in model.named_modules()
        if isinstance(layer, BinaryLayer)
    ]
    run(model.eval(), model)
    for handle in handles:
        handle.remove()
    binary = {name for name, module in model.named_modules() if isinstance(module, BinaryLayer)}
    assert set(checked) == binary - {"aux_conv"}  # which runs in training mode alone


def check_network(model: nn.Module) -> nn.Module:
    assert isinstance(model, nets.Net)
    frozen = frozen_of(model)
    check_every_layer(model, frozen)
    packed = pack_layers(copy.deepcopy(frozen))
    assert not any(type(module) is FrozenLayer for module in packed.modules())
    expected, found = run(frozen, model), run(packed, model)
    assert len(expected) == len(found) > 0
    for a, b in zip(expected, found):
        assert torch.equal(a, b)
    return frozen


@pytest.mark.parametrize("name", list(nets.ALL))
@pytest.mark.sampled(20)
def test_every_network_freezes(name: str, converted: Converted) -> None:
    check_network(converted(name))


@pytest.mark.parametrize(
    "scheme, why",
    [
        ("bitnet", "AbsMaxInput is no comparison with one threshold a channel"),
        ("realtobinary", "GatedSign multiplies by a map of its input"),
        ("tang", "ResidualSign is no comparison with one threshold a channel"),
    ],
)
def test_inputs_that_depend_on_their_sample_are_refused_by_name(
    scheme: str, why: str, converted: Converted
) -> None:
    record = frozen_record(frozen_of(converted("BasicBlocks", scheme)))
    assert record is not None and set(record.kept.values()) == {why}


@pytest.mark.parametrize("name", ["ConvRelu", "BasicBlocks"])
@pytest.mark.parametrize("scheme", nets.PACKABLE)
@pytest.mark.sampled
def test_every_scheme_freezes(scheme: str, name: str, converted: Converted) -> None:
    check_network(converted(name, scheme))


def test_the_norm_behind_a_layer_is_folded_where_nothing_else_reads_the_value(converted: Converted) -> None:
    frozen = frozen_of(converted("BasicBlocks"))
    record = frozen_record(frozen)
    assert record is not None
    folded = {f"blocks.{i}.conv{k}": f"blocks.{i}.bn{k}" for i in (0, 1) for k in (1, 2)}
    assert record.folded == folded
    assert all(type(frozen.get_submodule(path)) is nn.Identity for path in folded.values())


def test_timms_norm_leaves_its_activation(converted: Converted) -> None:
    frozen = frozen_of(converted("NormActivation"))
    assert type(frozen.bn1) is nn.Sequential


def test_a_layer_with_two_readers_or_two_calls_keeps_the_norm(converted: Converted) -> None:
    frozen = frozen_of(converted("CalledTwice"))
    assert isinstance(frozen.bn1, nn.BatchNorm2d) and isinstance(frozen.bn2, nn.BatchNorm2d)

    class TwoReaders(nets.Body):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nets.conv(), nn.BatchNorm2d(16)

        def run(self, x: Tensor) -> Tensor:
            y = self.conv1(torch.relu(x))
            return self.bn1(y) + y

    model = nets.seeded(TwoReaders)
    binary = binarize.convert(model, "bnn", example_input=nets.example(model))
    assert isinstance(check_network(binary).bn1, nn.BatchNorm2d)


def test_without_an_example_norms_behind_layers_stay(converted: Converted) -> None:
    model = converted("BasicBlocks")
    frozen = freeze(model)
    record = frozen_record(frozen)
    assert record is not None
    assert (record.folded, record.unseen) == ({}, "there was no example input")
    check_every_layer(model, frozen)


def test_an_example_that_does_not_run_is_said(converted: Converted) -> None:
    record = frozen_record(freeze(converted("BasicBlocks"), ((torch.zeros(1, 7, 4, 4),), {})))
    assert record is not None and record.unseen is not None
    assert record.unseen.startswith("the model does not run on the example input (1, 7, 4, 4)")


def test_the_model_is_left_as_it_was(converted: Converted) -> None:
    model = converted("BasicBlocks").train()
    model.stem.eval()
    heard = []
    handle = model.blocks.register_forward_hook(lambda *_: heard.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    frozen = frozen_of(model)
    assert not heard and not frozen.blocks._forward_hooks
    handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: module.training for name, module in model.named_modules()} == modes
    mine = {value.data_ptr() for value in model.state_dict(keep_vars=True).values() if value.numel()}
    assert not mine & {value.data_ptr() for value in frozen.state_dict().values() if value.numel()}
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(module.training for module in frozen.modules())


def test_a_layer_without_a_frozen_form_stays_trained(converted: Converted) -> None:
    model = converted("ConvBnRelu", "bnn")
    layer = model.layers[3]
    layer.input_binarizer = MappedSign()
    frozen = frozen_of(model)
    record = frozen_record(frozen)
    assert record is not None
    assert record.kept == {"layers.3": "MappedSign multiplies by a map of its input"}
    assert torch.equal(frozen.layers[3].weight, layer.weight)
    assert isinstance(frozen.layers[6], FrozenLayer)
    torch.testing.assert_close(run(frozen, model), run(model.eval(), model), rtol=1e-4, atol=1e-4)


def test_a_module_under_two_names_stays_one(converted: Converted) -> None:
    frozen = frozen_of(converted("TwoNames"))
    assert frozen.conv1 is frozen.conv2
    packed = pack_layers(frozen)
    assert packed.conv1 is packed.conv2 and isinstance(packed.conv1, PackedLayer)


def test_a_model_without_binary_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="the model has no binary layer"):
        freeze(nn.Linear(2, 2))
