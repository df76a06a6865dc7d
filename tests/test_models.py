"""The laws on models people use: counts against published numbers, and each conversion whole.

Weights are random and images small, so that a model takes seconds; the rest of each architecture is as it is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import timm
import torch
import torchvision
from test_laws import assert_equal, open_every_container, tensors
from torch import Tensor, nn

import binarize
from binarize.conversion.planned import PlannedConversion
from binarize.layers.layer import BinaryLayer

FAST = ["torchvision:resnet18", "torchvision:mobilenet_v2"]
SLOW = [
    "torchvision:vgg11", "torchvision:vgg11_bn", "torchvision:resnet50", "torchvision:densenet121",
    "torchvision:inception_v3", "torchvision:googlenet", "torchvision:squeezenet1_1", "torchvision:efficientnet_b0",
    "torchvision:regnet_y_400mf", "torchvision:convnext_tiny", "torchvision:deeplabv3_resnet50", "torchvision:r3d_18",
    "timm:resnet26", "timm:ghostnet_100", "timm:nf_resnet26", "timm:hrnet_w18_small", "timm:convnext_atto",
    "timm:efficientnet_lite0", "timm:dla34", "timm:repvgg_a0", "timm:mobilenetv3_small_050", "timm:regnetx_002",
]  # fmt: skip
every_model = pytest.mark.parametrize(
    "spec", [*FAST, *(pytest.param(spec, marks=pytest.mark.slow) for spec in SLOW)]
)


def build(spec: str) -> nn.Module:
    """The float model with seeded weights, in evaluation mode."""
    library, name = spec.split(":")
    options: dict[str, Any] = {"deeplabv3_resnet50": {"weights_backbone": None}}.get(name, {})
    if name in ("inception_v3", "googlenet"):
        options = {"init_weights": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "timm":
            return timm.create_model(name).eval()
        return torchvision.models.get_model(name, weights=None, **options).eval()


def images(spec: str, n: int = 4) -> Tensor:
    if spec.endswith("r3d_18"):
        still = nets.pictures(n, 48)
        return torch.stack([still.roll(shift, -1) for shift in range(4)], 2)
    if spec.endswith("inception_v3"):
        return nets.pictures(2, 299)  # its second head takes no less in training mode
    return nets.pictures(n, 64 if "vgg" in spec else 96)


Conversion = tuple[str, nn.Module, nn.Module]


@pytest.fixture(
    scope="module", params=[*FAST, *(pytest.param(spec, marks=pytest.mark.slow) for spec in SLOW)]
)
def conversion(request: pytest.FixtureRequest) -> Conversion:
    """(name, float model, converted model); pytest runs the tests of one model after each other."""
    model = build(request.param)
    converted = binarize.convert(model, "adabin", shortcuts="every", example_input=images(request.param, 8))
    return request.param, model, converted


def test_float_weights_carry_over_bit_equal(conversion: Conversion) -> None:
    _, model, converted = conversion
    found = dict(converted.named_parameters())
    for name, value in model.named_parameters():
        layer, _, leaf = name.rpartition(".")
        name = name if name in found or leaf != "bias" else f"{layer}.norm.bias"
        assert torch.equal(found[name], value), name
    assert isinstance(converted, type(model))


def test_signs_of_pictures_are_alive_or_the_report_warns(conversion: Conversion) -> None:
    _, _, converted = conversion
    rows = [row for row in converted.report.rows if row.action == "binarize" and row.live is not None]
    assert len(rows) > 2
    dead = [
        row.name for row in rows if not 0.02 < row.live.share_plus < 0.98 or row.live.constant_channels > 0.15
    ]
    assert len(dead) <= len(rows) // 10, dead
    assert bool(converted.report.warnings) or not dead


def test_first_gradients_are_finite_and_none_dies(conversion: Conversion) -> None:
    spec, *models = conversion
    theirs, ours = (gradients(copy.deepcopy(model).train(), images(spec)) for model in models)
    for name, gradient in ours.items():
        assert gradient is not None and torch.isfinite(gradient).all(), name
        if name in theirs and theirs[name] is not None and theirs[name].abs().max() > 0:
            assert gradient.abs().max() > 0, name


def gradients(model: nn.Module, x: Tensor) -> dict[str, Any]:
    torch.manual_seed(0)
    output = model(x)
    outputs = tensors(tuple(output) if isinstance(output, tuple) else output)
    sum(out.square().mean() for out in outputs).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_copies_and_saved_models_compute_the_same(conversion: Conversion, tmp_path: Path) -> None:
    spec, model, converted = conversion
    folder = binarize.save(converted, tmp_path / "net")
    loaded = binarize.load(folder, model=None if (folder / "structure.pt").exists() else model)
    x = images(spec, 2)
    with torch.no_grad():
        expected = tensors(converted(x))
        assert_equal(expected, tensors(copy.deepcopy(converted)(x)))
        assert_equal(expected, tensors(loaded(x)))
    assert_equal(list(converted.state_dict().values()), list(loaded.state_dict().values()))


def test_opening_every_container_changes_no_bit(conversion: Conversion) -> None:
    spec, *_ = conversion
    model = build(spec)
    edited = copy.deepcopy(model)
    opened, refused = open_every_container(edited, (images(spec, 2),))
    assert len(opened) > 2 * len(refused), refused
    x = images(spec, 2)
    with torch.no_grad():
        for training in (False, True):
            outputs = []
            for one in (model, edited):
                torch.manual_seed(0)
                output = one.train(training)(x)
                outputs.append(tensors(tuple(output) if isinstance(output, tuple) else output))
            assert_equal(*outputs)


# --- counts


def planned(spec: str, **options: Any) -> PlannedConversion:
    with torch.device("meta"):
        model = build(spec)
    return binarize.plan(model, "adabin", input_shape=(1, 3, 224, 224), **options)


def test_resnet18_counts_are_the_published_ones() -> None:
    plan = planned("torchvision:resnet18").plan
    assert sum(d.layer.macs for d in plan.decisions) == 1_814_073_344
    assert sum(d.layer.macs for d in plan.binarized) == 1_676_279_808
    assert sum(d.layer.weights for d in plan.binarized) == 10_985_472
    kept = {d.layer.name: d.rule for d in plan.decisions if not d.binary}
    downsamples = dict.fromkeys((f"layer{i}.0.downsample.0" for i in (2, 3, 4)), "downsample")
    assert kept == {"conv1": "first", "fc": "last", **downsamples}


@pytest.mark.parametrize("mode, count", [("missing", 0), ("every", 16)])
def test_resnet18_gets_a_shortcut_a_layer_only_where_asked_for(mode: str, count: int) -> None:
    plan = planned("torchvision:resnet18", shortcuts=mode).plan
    assert len(plan.binarized) == 16
    assert sum(d.shortcut != "none" for d in plan.decisions) == count


@pytest.mark.parametrize("spec", ["torchvision:vgg11", "torchvision:vgg11_bn"])
def test_vgg11_has_nine_binary_layers_and_a_shortcut_on_each_convolution(spec: str) -> None:
    plan = planned(spec, add_shortcuts=True).plan
    assert (len(plan.binarized), len(plan.decisions)) == (9, 11)
    convolutions = [d for d in plan.binarized if d.layer.kind == "conv"]
    kinds = [d.shortcut for d in convolutions]
    assert kinds == ["repeat2", "repeat2", "identity", "repeat2", "identity", "identity", "identity"]
    norms = {d.norm.split()[0] for d in convolutions}
    assert norms == ({"kept"} if spec.endswith("_bn") else {"added"})


@pytest.mark.parametrize(
    "spec, skips",
    [
        ("torchvision:resnet50", {"enclosing": 48, "none": 6}),
        ("torchvision:mobilenet_v2", {"enclosing": 30, "none": 23}),
        ("torchvision:densenet121", {"concat": 116, "none": 5}),
        ("torchvision:squeezenet1_1", {"none": 26}),
    ],
)
def test_layers_stand_in_the_blocks_of_their_architecture(spec: str, skips: dict[str, int]) -> None:
    layers = planned(spec).analysis.layers
    assert {kind: sum(layer.skip == kind for layer in layers) for kind in skips} == skips
    assert len(layers) == sum(skips.values())


@pytest.mark.parametrize(
    "spec, first, last",
    [
        ("torchvision:squeezenet1_1", {"features.0"}, {"classifier.1"}),
        ("torchvision:vit_b_32", {"conv_proj"}, {"heads.head"}),
        ("torchvision:googlenet", {"conv1.conv"}, {"fc", "aux1.fc2", "aux2.fc2"}),
        ("timm:deit_tiny_distilled_patch16_224", {"patch_embed.proj"}, {"head", "head_dist"}),
    ],
)
def test_first_and_last_are_found_by_data_flow(spec: str, first: set[str], last: set[str]) -> None:
    layers = planned(spec).analysis.layers
    assert {layer.name for layer in layers if layer.position == "first"} == first
    assert {layer.name for layer in layers if layer.position == "last"} == last


# --- a model with really trained weights


def test_a_trained_network_learns_again_after_conversion() -> None:
    """The bundled network, trained on digits: converted it is alive, and a few steps bring it most of the way back."""
    from binarize.demo.digits import load_digits, trained_vgg

    digits, model = load_digits(), trained_vgg()
    accuracy: Callable[[nn.Module], float] = lambda m: (  # noqa: E731
        (m.eval()(digits.held_out_images).argmax(1) == digits.held_out_labels).float().mean().item()
    )
    converted = binarize.convert(model, "adabin", add_shortcuts=True, example_input=digits.train_images[:256])
    assert sum(isinstance(module, BinaryLayer) for module in converted.modules()) == 4
    with torch.no_grad():
        assert accuracy(model) > 0.98
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(converted.parameters(), lr=3e-3)
    for step in range(45):
        chosen = torch.arange(64 * step, 64 * step + 64) % len(digits.train_labels)
        loss = nn.functional.cross_entropy(
            converted.train()(digits.train_images[chosen]), digits.train_labels[chosen]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert accuracy(converted) > 0.85


@pytest.mark.slow
def test_a_detector_is_converted_and_trains() -> None:
    """Its forward looks at values, takes a list of images and, in training, targets."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(
        "fasterrcnn_mobilenet_v3_large_320_fpn", weights=None, weights_backbone=None
    )
    pair = list(nets.pictures(2, 96))
    converted = binarize.convert(model.eval(), "adabin", add_shortcuts=True, example_input=(pair,))
    assert sum(isinstance(module, BinaryLayer) for module in converted.modules()) > 30
    assert sorted(converted(pair)[0]) == ["boxes", "labels", "scores"]
    target = {"boxes": torch.tensor([[8.0, 8.0, 60.0, 60.0]]), "labels": torch.tensor([1])}
    losses = converted.train()(pair, [target, target])
    sum(losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in converted.parameters())
