"""The numbers of binarize.cost against counts made by hand and against published ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import nets
import pytest
import torch
from torch import nn

import binarize
from binarize.analysis.layer import Layer
from binarize.layers.layer import BinaryLayer
from binarize.packed.freeze import pack_layers
from binarize.packed.layers import PackedLayer
from binarize.packed.levels import read_weight
from binarize.packed.window import Window
from binarize.planning.cost import layer_cost, totals
from binarize.planning.plan import Decision
from binarize.schemes.part import Part
from binarize.schemes.scheme import Scheme

MIB = 2**20


def conv(inputs: int, outputs: int, kernel: int, size: int, *, groups: int = 1, bias: bool = False) -> Layer:
    """A convolution that keeps its image at size x size."""
    weights = outputs * inputs // groups * kernel * kernel
    return Layer(
        name="conv",
        type="Conv2d",
        kind="conv",
        order=0,
        kernel=(kernel, kernel),
        groups=groups,
        in_channels=inputs,
        out_channels=outputs,
        in_shape=(2, inputs, size, size),
        out_shape=(2, outputs, size, size),
        weights=weights,
        params=weights + outputs * bias,
        bias=bias,
        macs=weights * size * size,
    )


def binary(layer: Layer, scheme: str = "bnn", **fields: object) -> Decision:
    return replace(Decision(layer, "binarize", "test", scheme=scheme), **fields)  # type: ignore[arg-type]


def decisions_of(
    model: nn.Module, image: tuple[int, ...], keep: Callable[[str], bool], scheme: str
) -> tuple[list[Decision], int, int]:
    """Decisions for a model on the meta device, its other parameters and its buffers, counted by hooks."""
    decisions: list[Decision] = []

    def record(name: str) -> Callable[[nn.Module, Sequence[torch.Tensor], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            layer = Layer(
                name=name,
                type=type(module).__name__,
                kind="conv" if weight.ndim == 4 else "linear",
                order=len(decisions),
                in_channels=inputs[0].shape[1],
                out_channels=output.shape[1],
                in_shape=tuple(inputs[0].shape),
                out_shape=tuple(output.shape),
                weights=weight.numel(),
                params=sum(p.numel() for p in module.parameters(recurse=False)),
                macs=weight[0].numel() * output[0].numel(),
            )
            kept = keep(name)
            decisions.append(Decision(layer, "keep", "test") if kept else binary(layer, scheme))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(record(name))
    model.eval()(torch.empty(image, device="meta"))
    listed = sum(decision.layer.params for decision in decisions)
    others = sum(p.numel() for p in model.parameters()) - listed
    return decisions, others, sum(b.numel() for b in model.buffers())


def test_resnet18_has_the_published_macs_and_ops_with_downsample_convs_float() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet18()
    ends = {"conv1", "fc"}
    found, others, buffers = decisions_of(
        model, (1, 3, 224, 224), lambda name: name in ends or "downsample" in name, "bireal"
    )
    total = totals(found, others, buffers)
    assert total.macs == 1_814_073_344
    assert total.binary_macs == total.bops == 1_676_279_808
    assert total.binary_weights == 10_985_472
    assert total.flops == 118_013_952 + 19_267_584 + 512_000
    assert total.ops == 163_985_408
    assert total.params == 11_689_512
    # Bi-Real Net prints 374.1 and 33.6 Mbit; the latter is 33.5 by this count, which leaves out the scales.
    assert round((total.packed_bytes - 4 * total.scale_values) * 8e-6, 1) == 33.5
    assert round(total.float_bytes * 8e-6, 1) == 374.1


@pytest.mark.parametrize(
    "keep_downsample, int8, packed", [(False, 10.74, 1.43), (True, 11.23, 2.07)], ids=["binary", "float"]
)
def test_resnet18_of_15_classes_has_the_published_sizes(
    keep_downsample: bool, int8: float, packed: float
) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.resnet18(num_classes=15)
    found, others, buffers = decisions_of(
        model,
        (1, 3, 224, 224),
        lambda name: name in {"conv1", "fc"} or (keep_downsample and "downsample" in name),
        "bnn",
    )
    total = totals(found, others, buffers)
    assert round(total.float_bytes / MIB, 3) == 42.664
    assert round(total.int8_bytes / MIB, 2) == int8
    assert round(total.packed_bytes / MIB, 2) == packed


def test_vgg11_of_15_classes_is_491_mebibytes_in_float() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.vgg11(num_classes=15)
    found, others, _ = decisions_of(model, (1, 3, 224, 224), lambda name: True, "bnn")
    total = totals(found, others)
    assert round(total.float_bytes / MIB, 2) == 491.44
    assert total.float_bytes == total.latent_bytes == total.packed_bytes == total.int8_bytes
    assert total.flops == total.macs and total.bops == 0


def test_bits_are_rounded_up_to_bytes_in_each_filter() -> None:
    depthwise = binary(conv(10, 10, 3, 4, groups=10))  # 9 bits a filter
    assert layer_cost(depthwise).packed_bytes == 10 * 2
    assert layer_cost(binary(conv(3, 5, 1, 4))).packed_bytes == 5 * 1
    assert layer_cost(binary(conv(16, 5, 1, 4))).packed_bytes == 5 * 2


def test_bias_and_added_parameters_stay_float_in_every_form() -> None:
    cost = layer_cost(binary(conv(8, 4, 1, 1, bias=True), extra_params=10))
    assert cost.float_bytes == 4 * (32 + 4)
    assert cost.latent_bytes == 4 * (32 + 4 + 10)
    assert cost.int8_bytes == 32 + 4 * (4 + 10)
    assert cost.packed_bytes == 4 * 1 + 4 * (4 + 10)


def test_packed_form_stores_the_scales_of_the_weight_part() -> None:
    decision = binary(conv(8, 64, 1, 1), scheme="any", scale_values=128)
    scheme = Scheme("any", weight=Part("adabin.AdaptiveWeight"), input=Part("bnn.SteSign"))
    assert layer_cost(decision, scheme).packed_bytes == 64 + 4 * 128
    assert totals([decision], schemes={"any": scheme}).packed_bytes == 64 + 4 * 128
    assert layer_cost(decision).packed_bytes == 64 + 4 * 128
    assert layer_cost(decision, Scheme("floats", input=Part("bnn.SteSign"))).scale_values == 0


def values_of(layer: BinaryLayer) -> int:
    """Floats that the two values of a layer's weights need, found out by asking them."""
    # A filter unlike the others: a scale that is a power of two may be the same for all that look alike.
    asked = copy.deepcopy(layer)
    with torch.no_grad():
        asked.weight.view(len(asked.weight), -1)[0] = torch.eye(asked.weight[0].numel())[0]  # type: ignore[operator, arg-type, union-attr]
    levels = read_weight(asked, Window.of(asked))
    assert not isinstance(levels, str)
    scales = levels.scale.unique().numel()
    per_filter = len(levels.scale) if scales > 1 else int(bool((levels.scale != 1).any()))
    return per_filter + (len(levels.centre) if bool(levels.centre.any()) else 0)


@pytest.mark.parametrize("scheme", nets.PACKABLE)
@pytest.mark.sampled(12)
def test_the_bytes_of_a_layer_are_those_that_its_packed_form_needs(scheme: str) -> None:
    """One bit a weight, the filter in whole bytes; its two values; and every parameter of its parts."""
    model = binarize.convert(nets.seeded(nets.ConvRelu), scheme, example_input=nets.pictures())
    packed = pack_layers(binarize.freeze(model))
    for decision in model._binarize.plan.binarized:  # type: ignore[union-attr]
        name = decision.layer.name
        layer, bits = model.get_submodule(name), packed.get_submodule(name)
        assert isinstance(layer, BinaryLayer) and isinstance(bits, PackedLayer)
        behind = decision.activation.partition(" -> ")[2]
        own, kept = {}, layer.weight_binarizer
        if getattr(kept, "keeps_parameters", True):
            own = {f"weight_binarizer.{key}": p.numel() for key, p in kept.named_parameters()}
        # What helps to train alone is not packed either.
        left = {key: p for key, p in layer.named_parameters() if key != "weight" and ".noise." not in key}
        parts = sum(p.numel() for key, p in left.items() if key not in own)
        if name == "classifier.3" and model._binarize.plan.schemes[scheme].last_activation == "replace":  # type: ignore[union-attr]
            # No binary layer reads the last one, so it belongs to the layer in front of it.
            parts += sum(p.numel() for p in model.get_submodule("classifier.4").parameters())
        if behind:
            parts += sum(p.numel() for p in model.get_submodule(before(name)).parameters())
        cost = layer_cost(decision, model._binarize.plan.schemes[scheme])  # type: ignore[union-attr]
        if not own or cost.scale_values:
            assert cost.scale_values == values_of(layer), name
        else:  # its two values are what it trains
            assert sum(own.values()) == values_of(layer), name
        if not getattr(kept, "keeps_parameters", True):
            parts -= sum(p.numel() for p in kept.parameters())
        assert cost.packed_bytes == bits.bits.numel() + 4 * (cost.scale_values + sum(own.values()) + parts), (
            name
        )


def before(name: str) -> str:
    """The activation in front of a layer of ConvRelu."""
    return {
        "features.2": "features.1", "features.5": "features.3", "classifier.0": "features.6",
        "classifier.3": "classifier.1", "classifier.6": "classifier.4",
    }[name]  # fmt: skip


def test_binary_weights_with_float_inputs_are_float_adds_and_no_bops() -> None:
    cost = layer_cost(binary(conv(8, 4, 3, 5), weights_only=True))
    assert cost.bops == cost.binary_macs == 0
    assert cost.flops == cost.float_adds == cost.macs == 8 * 4 * 9 * 25
    assert cost.packed_bytes < cost.float_bytes
    scheme = Scheme("bnn", weight=Part("bnn.SteSign"))
    assert layer_cost(binary(conv(8, 4, 3, 5)), scheme) == cost


def test_binary_inputs_with_float_weights_are_float_adds_and_pack_nothing() -> None:
    cost = layer_cost(binary(conv(8, 4, 3, 5)), Scheme("bnn", input=Part("bnn.SteSign")))
    assert cost.bops == cost.binary_weights == cost.scale_values == 0
    assert cost.flops == cost.float_adds == cost.macs
    assert cost.packed_bytes == cost.int8_bytes == cost.float_bytes


def test_bit_planes_multiply_bops_but_not_binary_macs() -> None:
    cost = layer_cost(binary(conv(8, 4, 3, 5), bitplanes=3))
    assert cost.bops == 3 * cost.macs == 3 * cost.binary_macs
    assert cost.ops == 3 * cost.macs / 64


def test_projection_shortcut_adds_its_convolution_to_the_flops() -> None:
    layer = conv(8, 16, 3, 5)
    assert layer_cost(binary(layer, shortcut="conv1x1")).flops == 8 * 16 * 25
    assert layer_cost(binary(layer, shortcut="identity")).flops == 0


def test_parameters_outside_the_layers_count_in_every_size() -> None:
    layer = conv(8, 4, 1, 1)
    bare, more = totals([binary(layer)]), totals([binary(layer)], other_params=100, other_buffers=7)
    assert more.params - bare.params == 100 and more.other_buffers == 7
    for size in ("float_bytes", "latent_bytes", "int8_bytes", "packed_bytes"):
        assert getattr(more, size) - getattr(bare, size) == 400


def test_totals_of_no_layer_are_zero_and_divide_nothing() -> None:
    empty = totals([])
    assert empty.binary_share == 0.0 and empty.compression == 1.0 and empty.ops == 0


def test_a_weight_whose_size_is_no_multiple_of_its_filters_is_one_stream() -> None:
    odd = replace(conv(8, 4, 1, 1), weights=33, params=33)
    assert layer_cost(binary(odd)).packed_bytes == 5
