"""Parameter groups, learning rates, and clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from binarize.errors import UsageError
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.optimizers import latent_ranges, make_optimizer, make_rates, parameter_groups
from binarize.training.loop.stages import stages_of
from binarize.training.recipe import recipe_of

Converted = Callable[..., nn.Module]


def by_name(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """Parameter -> (its group, its decay)."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (group["name"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("scheme", ["adabin", "bireal", "reactnet", "ienet", "xnorpp", "binaryconnect"])
def test_groups_hold_every_parameter_once(converted: Converted, scheme: str) -> None:
    model = converted("BasicBlocks", scheme)
    grouped = [p for group in parameter_groups(model) for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize(
    "scheme, decay",
    [("adabin", 0.1), ("irnet", 0.1), ("ienet", 0.1), ("bireal", 0), ("bnn", 0), ("reactnet", 0)],
)
def test_latent_weights_decay_only_where_they_are_standardized(
    converted: Converted, scheme: str, decay: float
) -> None:
    model = converted("ConvRelu", scheme)
    found = by_name(model, parameter_groups(model, weight_decay=0.1))
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            assert found[f"{name}.weight"] == ("binary weights", decay)
    # The stem and the head stay float.
    assert found["features.0.weight"] == found["classifier.6.weight"] == ("weights", 0.1)
    assert found["classifier.6.bias"] == ("rest", 0)


@pytest.mark.parametrize("scheme, word", [("adabin", "alpha"), ("reactnet", "tau"), ("xnorpp", "scale.s")])
def test_numbers_of_binarizers_do_not_decay(converted: Converted, scheme: str, word: str) -> None:
    model = converted("ConvRelu", scheme)
    found = by_name(model, parameter_groups(model, weight_decay=0.1))
    own = {group for name, group in found.items() if name.endswith(word)}
    assert own == {("binary parameters", 0)}


def test_all_means_all(converted: Converted) -> None:
    groups = parameter_groups(converted("ConvRelu", "bireal"), weight_decay=0.1, weight_decay_on="all")
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_latent_means_the_weights_of_binary_layers_alone(converted: Converted) -> None:
    model = converted("ConvRelu", "bireal")
    found = by_name(model, parameter_groups(model, weight_decay=0.1, weight_decay_on="latent"))
    binary = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, BinaryLayer)}
    assert {name for name, (_, decay) in found.items() if decay} == binary
    assert {found[name] for name in binary} == {("binary weights", 0.1)}


def test_binaryconnects_rates_are_those_of_its_code(converted: Converted) -> None:
    model = converted("ConvRelu", "binaryconnect")
    recipe = recipe_of(model, published=True)
    optimizer = make_optimizer(model, recipe)
    rates = make_rates(optimizer, recipe, steps=5000, steps_per_epoch=10)
    names = {id(p): name for name, p in model.named_parameters()}
    by_layer = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    # 3x3 of 16 to 32 channels, and 128 to 32: sqrt((inputs + outputs) / 1.5)
    scales = {"features.2.weight": (9 * 48 / 1.5) ** 0.5, "classifier.0.weight": (160 / 1.5) ** 0.5}
    for step, rate in ((0, 3e-3), (4999, 2e-6 / 0.98548)):
        rates.step_update(step)
        assert by_layer["classifier.6.weight"]["lr"] == pytest.approx(rate, rel=1e-3)
        for name, scale in scales.items():
            assert by_layer[name]["lr"] == pytest.approx(rate * scale, rel=1e-3)


def test_xnor_nets_rates_and_decays_are_those_of_its_release(converted: Converted) -> None:
    recipe = recipe_of(converted("ConvRelu", "xnor"), published=True)
    assert (recipe.batch_size, recipe.optimizer, recipe.weight_decay_on) == (800, "adam", "all")
    epochs = [
        (stage.recipe.lr, stage.recipe.weight_decay)
        for stage in stages_of(recipe)
        for _ in range(stage.recipe.epochs)
    ]
    assert len(epochs) == 55
    begins = {1: (1e-3, 5e-4), 19: (5e-4, 5e-4), 30: (1e-4, 0), 44: (5e-5, 0), 53: (1e-5, 0)}
    found = {i + 1: one for i, one in enumerate(epochs) if i == 0 or one != epochs[i - 1]}
    assert found == begins
    assert all(stage.recipe.schedule == "constant" and stage.whole for stage in stages_of(recipe))


@pytest.mark.parametrize("scheme", ["adabin", "irnet", "ienet"])
def test_the_recipes_that_decay_everything_say_so(converted: Converted, scheme: str) -> None:
    recipe = recipe_of(converted("ConvRelu", scheme), published=True)
    assert (recipe.weight_decay, recipe.weight_decay_on) == (1e-4, "all")


def test_frozen_parameters_are_left_out(converted: Converted) -> None:
    model = converted("ConvRelu")
    model.get_submodule("features.0").requires_grad_(False)
    assert "features.0.weight" not in by_name(model, parameter_groups(model))
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="all of them are frozen"):
        make_optimizer(model, Recipe())


def test_an_optimizer_steps_in_any_loop_and_clips(converted: Converted) -> None:
    model = converted("ConvRelu", "binaryconnect")
    optimizer = make_optimizer(model, Recipe(optimizer="sgd", lr=100.0, momentum=0))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    latent = [weight for weight, _, _ in latent_ranges(model)]
    assert latent
    for weight in latent:
        assert torch.equal(weight, torch.full_like(weight, -1))
    stem = model.get_parameter("features.0.weight")
    assert stem.max() < -50


def test_a_scheme_without_clip_clips_nothing(converted: Converted) -> None:
    assert not list(latent_ranges(converted("ConvRelu", "adabin")))


def test_an_unknown_optimizer_is_named(converted: Converted) -> None:
    with pytest.raises(UsageError, match=r'no optimizer "adm"; did you mean "adam"\?'):
        make_optimizer(converted("ConvRelu"), Recipe(optimizer="adm"))


def rates(recipe: Recipe, steps: int, steps_per_epoch: int = 1) -> list[float]:
    """The learning rate of each step, as a training loop meets it."""
    optimizer = torch.optim.SGD([Tensor([0.0]).requires_grad_()], lr=recipe.lr)
    scheduler = make_rates(optimizer, recipe, steps, steps_per_epoch)
    found = []
    for done in range(1, steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step_update(done)
    return found


def test_cosine_and_line_equal_the_tables() -> None:
    epochs = (0, 100, 200, 300, 399)
    cosine, line = rates(Recipe(lr=0.1), 400), rates(Recipe(lr=1e-3, schedule="linear"), 400)
    assert [cosine[e] for e in epochs] == pytest.approx(
        [0.1, 0.085355339059, 0.05, 0.014644660941, 1.542118e-06], rel=1e-6
    )
    assert [line[e] for e in epochs] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4, 2.5e-6], rel=1e-6)


def test_the_rate_rises_before_it_falls() -> None:
    found = rates(Recipe(lr=1.0, warmup=0.2), 20)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == sorted(found[4:], reverse=True)


def test_steps_fall_at_their_milestones() -> None:
    given = Recipe(lr=1.0, schedule="step", milestones=(1, 3), gamma=0.5)
    assert rates(given, 8, 2) == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25])
    usual = Recipe(lr=1.0, schedule="step")
    assert rates(usual, 4, 1) == pytest.approx([1, 1, 0.1, 0.01])


def test_exponential_falls_each_epoch() -> None:
    assert rates(Recipe(lr=1.0, schedule="exponential", gamma=0.5), 6, 2) == pytest.approx(
        [1, 1, 0.5, 0.5, 0.25, 0.25]
    )
    usual = rates(Recipe(lr=1.0, schedule="exponential"), 10, 1)
    assert usual[-1] == pytest.approx(1e-3 ** (9 / 10))


def test_constant_stays() -> None:
    assert rates(Recipe(lr=0.3, schedule="constant"), 5) == [0.3] * 5


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "exponential", "constant"])
def test_one_step_is_enough_for_every_schedule(schedule: str) -> None:
    assert rates(Recipe(lr=0.3, schedule=schedule, warmup=0.5), 1) == [0.3]  # type: ignore[arg-type]
