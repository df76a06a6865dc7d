"""Thresholds, levels and BatchNorm statistics from a few images; with the float model, its outputs too."""

from __future__ import annotations

from typing import Any

import nets
import pytest
import torch
from test_laws import run
from torch import Tensor, nn

import binarize
from binarize.conversion.float_twin import float_twin
from binarize.errors import UsageError
from binarize.inputs.batches import as_batches, count, spread_images
from binarize.planning.record.capture import Calibrated, CalibrationState
from binarize.training.calibrate import calibrate


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
    calibrate(model, x, "none")
    binarizer = model.layers[3].input_binarizer
    read = inputs_of(model, "layers.3", x)
    torch.testing.assert_close(binarizer.beta, read.mean().view(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(binarizer.alpha, read.std(correction=0).view(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme, part", [("adabin", "threshold.tau"), ("bireal", "threshold.tau")])
def test_a_threshold_is_the_mean_of_each_channel(scheme: str, part: str) -> None:
    model, x = uncalibrated("Silu", scheme, "never"), nets.pictures(8)
    calibrate(model, x, "none")
    tau = model.layers[2].get_parameter(part)
    torch.testing.assert_close(tau, inputs_of(model, "layers.2", x).mean((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_a_threshold_of_tokens_is_the_mean_of_each_feature() -> None:
    model, x = uncalibrated("Tokens", shortcuts="never"), nets.pictures(8)
    calibrate(model, x, "none")
    layer = model.mlp1[2]
    torch.testing.assert_close(
        layer.threshold.tau, inputs_of(model, "mlp1.2", x).mean((0, 1)), rtol=1e-4, atol=1e-4
    )


def test_statistics_are_the_mean_over_all_batches_behind_the_first_binary_layer() -> None:
    model = uncalibrated("ConvBnRelu", shortcuts="never")
    stem = {key: value.clone() for key, value in model.layers[1].state_dict().items()}
    batches = [nets.pictures(8), nets.pictures(8).flip(-1), nets.pictures(8) * 0.5]
    found = calibrate(model, batches, "none")
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
    calibrate(model, nets.pictures(8), "none")
    changed = {
        key.rpartition(".")[2]
        for key, value in model.state_dict().items()
        if not torch.equal(before[key], value)
    }
    assert changed and changed <= {
        "alpha",
        "beta",
        "tau",
        "width",
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
    calibrate(model, images, "none")
    first = run(model)
    calibrate(model, images, "none")
    for expected, found in zip(first, run(model)):
        torch.testing.assert_close(expected, found, rtol=1e-4, atol=1e-4)


def test_one_image_is_enough_for_norms_of_images_and_leaves_those_of_vectors() -> None:
    model = uncalibrated("ConvRelu")
    found = calibrate(model, nets.pictures(1), "none")
    assert found.norms == ("features.2.norm", "features.5.norm")


@pytest.mark.parametrize(
    "data, counts",
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
def test_batches_come_in_every_form_a_loader_has(data: Any, counts: list[int]) -> None:
    assert [count(images) for images in as_batches(data)] == counts


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


def test_images_that_are_not_finite_are_refused() -> None:
    bnn = binarize.convert(nets.seeded(nets.ALL["ConvRelu"]), "bnn")
    images = nets.pictures(8)
    images[5, 0, 0, 0] = torch.nan
    before = {name: value.clone() for name, value in bnn.state_dict().items()}
    with pytest.raises(UsageError, match="image 6 of the calibration data holds numbers"):
        binarize.calibrate(bnn, list(images.split(4)))
    assert all(torch.equal(value, before[name]) for name, value in bnn.state_dict().items())


def test_a_float_model_cannot_be_calibrated() -> None:
    with pytest.raises(UsageError, match="has no binary layer; convert it first"):
        calibrate(nets.ConvRelu(), nets.pictures(2))


def test_batches_are_joined_up_to_a_number_of_images() -> None:
    batches = as_batches([nets.pictures(3), nets.pictures(2), nets.pictures(4)])
    assert [count(spread_images(batches, most)) for most in (2, 4, 100)] == [2, 4, 9]
    two_sizes = as_batches([torch.zeros(3, 1, 4, 4), torch.zeros(2, 1, 5, 5)])
    assert [count(spread_images(two_sizes, most)) for most in (2, 5)] == [2, 3]


def test_few_images_are_taken_from_all_batches() -> None:
    numbers = torch.arange(12.0)[:, None]
    batches = as_batches([numbers[:5], numbers[5:7], numbers[7:]])
    (few,), _ = spread_images(batches, 4)
    assert few.flatten().tolist() == [0, 3, 6, 9]
    (all_of_them,), _ = spread_images(batches, 12)
    assert torch.equal(all_of_them, numbers)


def converted(name: str, scheme: str, shortcuts: str = "never") -> tuple[nn.Module, Any]:
    model = nets.seeded(nets.ALL[name])
    binary = binarize.convert(
        model, scheme, shortcuts=shortcuts, example_input=nets.example(model), calibrate=False
    )
    return model, binary


def outputs_of(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """What the module at `path` gives."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(
        lambda module, args, out: seen.append(out.clone())
    )
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("signs", [False, True])
def test_a_norm_gives_what_comes_nearest_to_the_float_norm(signs: bool) -> None:
    model, binary = converted("ConvBnRelu", "reactnet")
    x = nets.pictures(8)
    calibrate(binary, x, model, signs=signs)
    for path in ("layers.4", "layers.7"):
        ours, theirs = (outputs_of(m, path, x).movedim(1, 0).flatten(1).double() for m in (binary, model))
        error = ours - theirs
        # The two conditions of least squares: the error has mean 0 and is orthogonal to the output, in every channel.
        torch.testing.assert_close(error.mean(1), torch.zeros(len(error)).double(), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            (error * ours).mean(1), torch.zeros(len(error)).double(), rtol=0, atol=1e-4 * float(theirs.var())
        )


def test_by_variance_a_norm_has_the_float_norms_mean_and_deviation() -> None:
    model, binary = converted("ConvBnRelu", "reactnet")
    x = nets.pictures(8)
    calibrate(binary, x, model, fit="variance", signs=False)
    ours, theirs = (outputs_of(m, "layers.4", x).movedim(1, 0).flatten(1) for m in (binary, model))
    torch.testing.assert_close(ours.mean(1), theirs.mean(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.std(1), theirs.std(1), rtol=1e-3, atol=1e-3)


def test_what_a_shortcut_adds_is_left_to_it() -> None:
    """With a shortcut the sum is compared, so what the norm is fitted to is the float norm less the shortcut."""
    model, binary = converted("ConvBnRelu", "reactnet", "every")
    x = nets.pictures(8)
    calibrate(binary, x, model, signs=False)
    shortcut = outputs_of(binary, "layers.3.shortcut", x)
    total = outputs_of(binary, "layers.4", x) + shortcut
    error = (total - outputs_of(model, "layers.4", x)).movedim(1, 0).flatten(1)
    torch.testing.assert_close(error.mean(1), torch.zeros(len(error)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "scheme, module, names", [("reactnet_paper", "RPReLU", ("slope",)), ("adabin", "Maxout", ("neg",))]
)
def test_a_nonlinearity_begins_as_the_relu_it_stands_for(
    scheme: str, module: str, names: tuple[str, ...]
) -> None:
    model, binary = converted("ConvBnRelu", scheme)
    calibrate(binary, nets.pictures(8), model, signs=False)
    found = [m for m in binary.modules() if type(m).__name__ == module]
    assert found
    for one in found:
        assert all(not one.get_parameter(name).any() for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "ConvRelu",
        "BasicBlocks",
        "PreActivation",
        "Dense",
        "NormActivation",
        "Tokens",
        "CalledTwice",
    ],
)
@pytest.mark.parametrize("scheme", ["adabin", "xnor"])
def test_every_architecture_comes_nearer_to_its_float_model(name: str, scheme: str) -> None:
    model, binary = converted(name, scheme, "every")
    x = nets.pictures(16)
    calibrate(binary, x, "none")
    with torch.no_grad():
        wanted = model.eval()(x)
        before = (binary.eval()(x) - wanted).square().mean()
        calibrate(binary, x, model, steps=0)
        after = (binary.eval()(x) - wanted).square().mean()
    assert after < before


def test_steps_bring_each_layer_nearer() -> None:
    model, binary = converted("ConvBnRelu", "bireal")
    found = calibrate(binary, nets.pictures(16), model, signs=False, steps=60, joint_steps=0)
    assert list(found.errors) == ["layers.3", "layers.6"]
    assert all(after < before for before, after in found.errors.values())


def test_joint_steps_bring_the_output_nearer() -> None:
    model, binary = converted("ConvBnRelu", "bireal")
    found = calibrate(binary, nets.pictures(16), model, signs=False, joint_steps=60)
    assert found.distance is not None and found.distance[1] < found.distance[0]


def test_the_same_seed_gives_the_same_model_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (converted("ConvBnRelu", "adabin") for _ in "ab")
    for model, binary in (first, second):
        calibrate(binary, nets.pictures(8), model, steps=3)
    for name, value in first[1].state_dict().items():
        assert torch.equal(value, second[1].state_dict()[name]), name
    assert torch.equal(torch.get_rng_state(), state)


def test_the_float_model_and_its_modes_stay_as_they_were() -> None:
    model, binary = converted("BasicBlocks", "adabin", "every")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(binary, nets.pictures(8), model, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(p.requires_grad and p.grad is None for p in binary.parameters())


def test_right_after_conversion_the_weights_are_the_float_models(tmp_path: Any) -> None:
    model, binary = converted("ConvBnRelu", "adabin")
    x = nets.pictures(8)
    with torch.no_grad():
        wanted = model.eval()(x)
    binarize.save(binary, tmp_path / "net")
    del model, binary
    loaded = binarize.load(tmp_path / "net", model=nets.ALL["ConvBnRelu"]())
    twin = float_twin(loaded)
    assert twin is not None
    with torch.no_grad():
        assert torch.equal(twin(x), wanted)
    assert calibrate(loaded, x).reference == "the weights as converted"
    # Now they are another model's, and the float model is gone.
    assert float_twin(loaded) is None
    with pytest.raises(UsageError, match="was fitted to its float model before"):
        calibrate(loaded, x)
    again = calibrate(loaded, x, "none")
    assert again.reference is None and again.why_none


def test_the_report_says_where_thresholds_come_from() -> None:
    model, binary = converted("ConvBnRelu", "reactnet")
    calibrate(binary, nets.pictures(8), model)
    assert binary.report.row("layers.3").threshold == "per channel, mean and best split of 8 images"
    assert binary.report.row("layers.3").live is not None
    assert binary._binarize.plan.capture.calibration == Calibrated(CalibrationState.DONE, 8, fitted=True)


def test_named_data_is_opened_and_counted() -> None:
    model = nets.seeded(nets.ALL["ConvBnRelu"])
    binary = binarize.convert(model, "adabin", input_shape=(2, 3, 16, 16))
    found = calibrate(binary, "fake:64", model, limit=24)
    assert (found.images, found.data) == (24, "fake:64")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fit": "least-sqares"}, 'fit="least-sqares" is none of least-squares, variance; did you mean'),
        ({"data": "no/such/folder"}, "no such folder"),
    ],
)
def test_mistakes_are_answered(arguments: dict[str, Any], message: str) -> None:
    model, binary = converted("ConvBnRelu", "adabin")
    with pytest.raises(UsageError, match=message):
        calibrate(binary, **{"data": nets.pictures(8), "float_model": model, **arguments})


def test_a_float_model_of_other_sizes_is_refused() -> None:
    bnn = binarize.convert(nets.seeded(nets.ALL["ConvRelu"]), "bnn")
    with pytest.raises(UsageError, match="is not the float model of this one: none of its layers fits"):
        binarize.calibrate(bnn, nets.pictures(8), nets.seeded(nets.ALL["Mlp"]))


def test_a_model_is_not_its_own_float_model() -> None:
    _, binary = converted("ConvBnRelu", "adabin")
    with pytest.raises(UsageError, match="cannot be its own float model"):
        calibrate(binary, nets.pictures(8), binary)


@pytest.mark.parametrize("scheme", binarize.builtin_rule_sets())
def test_a_twin_is_the_float_model_or_none(scheme: str) -> None:
    model = nets.seeded(nets.ConvBnRelu)
    converted = binarize.convert(model, scheme, example_input=nets.pictures(4), calibrate=False)
    twin = float_twin(converted)
    # These scale the weights they start from.
    scaling = ("bayesbinn", "binaryconnect_stochastic", "biper", "naive-bernoulli")
    assert (twin is None) == (scheme in scaling)
    if twin is not None:
        assert torch.equal(twin(nets.pictures(4)), model(nets.pictures(4)))
