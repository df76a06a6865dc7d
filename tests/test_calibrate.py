"""Thresholds, levels and BatchNorm statistics from a few images, and nothing else changed."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from test_laws import run
from torch import Tensor, nn

import binarize
from binarize.calibrate import as_batches, calibrate
from binarize.errors import UsageError


def uncalibrated(name: str, scheme: str = "adabin", shortcuts: str = "every") -> Any:
    model = nets.seeded(nets.ALL[name])
    return binarize.convert(
        model, scheme, shortcuts=shortcuts, example_input=nets.example(model), calibrate=False
    )


def inputs_of(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """What the module at `path` reads."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0]


def test_levels_are_mean_and_deviation_of_what_the_layer_reads() -> None:
    model, x = uncalibrated("ConvBnRelu", shortcuts="never"), nets.pictures(8)
    calibrate(model, x)
    binarizer = model.layers[3].input_binarizer
    read = inputs_of(model, "layers.3", x)
    torch.testing.assert_close(binarizer.beta, read.mean().view(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(binarizer.alpha, read.std(correction=0).view(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme, part", [("adabin", "threshold.tau"), ("bireal", "threshold.tau")])
def test_a_threshold_is_the_mean_of_each_channel(scheme: str, part: str) -> None:
    model, x = uncalibrated("Silu", scheme, "never"), nets.pictures(8)
    calibrate(model, x)
    tau = model.layers[2].get_parameter(part)
    torch.testing.assert_close(tau, inputs_of(model, "layers.2", x).mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_a_threshold_of_tokens_is_the_mean_of_each_feature() -> None:
    model, x = uncalibrated("Tokens", shortcuts="never"), nets.pictures(8)
    calibrate(model, x)
    layer = model.mlp1[2]
    torch.testing.assert_close(
        layer.threshold.tau, inputs_of(model, "mlp1.2", x).mean((0, 1)), rtol=1e-4, atol=1e-4
    )


def test_statistics_are_the_mean_over_all_batches_behind_the_first_binary_layer() -> None:
    model = uncalibrated("ConvBnRelu", shortcuts="never")
    stem = {key: value.clone() for key, value in model.layers[1].state_dict().items()}
    batches = [nets.pictures(8), nets.pictures(8).flip(-1), nets.pictures(8) * 0.5]
    found = calibrate(model, batches)
    assert (found.images, found.norms) == (24, ("layers.4", "layers.7"))
    means = torch.stack([inputs_of(model, "layers.4", x).mean((0, 2, 3)) for x in batches])
    torch.testing.assert_close(model.layers[4].running_mean, means.mean(0), rtol=1e-3, atol=1e-3)
    # What stands before every sign was right already.
    assert all(torch.equal(stem[key], value) for key, value in model.layers[1].state_dict().items())


@pytest.mark.parametrize("name", ["ConvRelu", "BasicBlocks", "Dense", "NormActivation", "FunctionalNorm"])
def test_only_levels_thresholds_and_statistics_change(name: str) -> None:
    model = uncalibrated(name).train()
    model.head = getattr(model, "head", nn.Identity()).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    calibrate(model, nets.pictures(8))
    changed = {
        key.rpartition(".")[2]
        for key, value in model.state_dict().items()
        if not torch.equal(before[key], value)
    }
    assert changed and changed <= {
        "alpha",
        "beta",
        "tau",
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert [module.training for module in model.modules()] == modes
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("name", ["ConvRelu", "BasicBlocks", "Keywords", "Structured"])
def test_calibrating_again_on_the_same_images_changes_no_bit(name: str) -> None:
    model = uncalibrated(name)
    images = [model.keywords(8) or (model.arguments(8),)]
    calibrate(model, images)
    first = run(model)
    calibrate(model, images)
    for expected, found in zip(first, run(model)):
        torch.testing.assert_close(expected, found, rtol=1e-4, atol=1e-4)


def test_one_image_is_enough_for_norms_of_images_and_leaves_those_of_vectors() -> None:
    model = uncalibrated("ConvRelu")
    found = calibrate(model, nets.pictures(1))
    assert found.norms == ("features.2.norm", "features.5.norm")


@pytest.mark.parametrize(
    "data, count",
    [
        (nets.pictures(3), [3]),
        ([nets.pictures(3), nets.pictures(2)], [3, 2]),
        # Images with labels, as a DataLoader gives them.
        ([(nets.pictures(3), torch.arange(3)), [nets.pictures(2), torch.arange(2)]], [3, 2]),
        ((nets.pictures(3), torch.arange(3)), [3]),
        ({"inputs": {"left": nets.pictures(3)}, "scale": 1.0}, [3]),
        ([((nets.pictures(3), nets.pictures(3)),)], [3]),
        (iter([nets.pictures(3)]), [3]),
    ],
)
def test_batches_come_in_every_form_a_loader_has(data: Any, count: list[int]) -> None:
    from binarize.calibrate import _count

    assert [_count(images) for images in as_batches(data)] == count


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "no calibration data"),
        (torch.zeros(0, 3, 4, 4), "no calibration data"),
        ([5], "a calibration batch is a int"),
    ],
)
def test_no_data_is_an_error(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_batches(data)


def test_noise_is_refused_unless_asked_for() -> None:
    model = uncalibrated("ConvRelu")
    with pytest.raises(UsageError, match="the calibration data is white noise"):
        calibrate(model, torch.randn(8, 3, 16, 16))
    with pytest.raises(UsageError, match="the calibration data is constant"):
        calibrate(model, torch.ones(8, 3, 16, 16))
    assert calibrate(model, torch.randn(8, 3, 16, 16), noise=True).images == 8


def test_a_float_model_cannot_be_calibrated() -> None:
    with pytest.raises(UsageError, match="has no binary layer; convert it first"):
        calibrate(nets.ConvRelu(), nets.pictures(2))
