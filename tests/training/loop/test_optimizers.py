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
