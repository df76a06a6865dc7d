"""Stages: what is float while they last, and that nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.binarizers import adabin, bireal, bnn, dorefa, ienet, irnet, reactnet
from binarize.errors import RuleError
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.flips import Flips
from binarize.training.loop.optimizers import parameter_groups
from binarize.training.loop.stages import Relaxed, Stage, partly_binary, stages_of, two_stages

Converted = Callable[..., nn.Module]
BOTH = frozenset(("input", "weight"))


def test_a_plain_recipe_is_one_whole_stage() -> None:
    (stage,) = stages_of(Recipe(epochs=7))
    assert stage.whole and stage.recipe.epochs == 7


def test_stages_change_the_recipe() -> None:
    recipe = Recipe(epochs=8).changed(
        {"stages": [{"binary": "input", "weight_decay": 1e-5, "layers": 0.5}, {"lr": 1e-4, "epochs": 3}]}
    )
    first, second = stages_of(recipe)
    assert (first.binary, first.layers, first.recipe.weight_decay, first.recipe.epochs) == (
        {"input"},
        0.5,
        1e-5,
        8,
    )
    assert (second.binary, second.recipe.lr, second.recipe.weight_decay, second.recipe.epochs) == (
        BOTH,
        1e-4,
        0,
        3,
    )
    assert first.title == "inputs binary, first 50 % of the layers"
    assert second.title == "inputs and weights binary"


@pytest.mark.parametrize("epochs, split", [(1, (1, 1)), (5, (2, 3)), (30, (15, 15))])
def test_two_stages_halve_the_epochs(epochs: int, split: tuple[int, int]) -> None:
    stages = stages_of(two_stages(Recipe(epochs=epochs)))
    assert tuple(stage.recipe.epochs for stage in stages) == split


@pytest.mark.parametrize(
    "stages, message",
    [
        ([{"binary": "input"}], "the last of 1 stages has inputs binary"),
        ([{"layers": 0.5}], "first 50 % of the layers; it needs"),
        (
            [{"binary": "inputs"}, {}],
            "stages[0]: binary is 'inputs'; expected input, weight or both; did you mean",
        ),
        ([{"layers": 2}, {}], "stages[0]: layers is 2"),
        ([{"epoch": 2}, {}], "unknown key 'epoch'"),
    ],
)
def test_stages_that_cannot_be_meant(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RuleError) as caught:
        stages_of(Recipe().changed({"stages": stages}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "binarizer",
    [
        bnn.SteSign(),
        bireal.ApproxSign(),
        irnet.Ede(),
        dorefa.ZeroOne(),
        reactnet.RSign(3),
        adabin.AdaptiveInput(),
        ienet.MultiSign(3, thresholds=2),
    ],
    ids=lambda b: type(b).__name__,
)
def test_the_stand_in_has_the_values_of_the_sign_far_from_its_threshold(binarizer: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in binarizer.parameters():
        parameter.data.add_(torch.rand_like(parameter) * 0.3)
    x = torch.tensor([-50.0, 50.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    torch.testing.assert_close(Relaxed(binarizer)(x), binarizer(x), rtol=1e-6, atol=1e-6)


def test_the_stand_in_is_a_line_through_the_threshold() -> None:
    adaptive = adabin.AdaptiveInput()
    adaptive.alpha.data.fill_(2.0), adaptive.beta.data.fill_(1.0)
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.5, 3.0, 9.0])
    assert Relaxed(adaptive)(x).tolist() == [-1.0, -1.0, 0.0, 1.0, 2.5, 3.0, 3.0]
    shifted = reactnet.RSign(1)
    shifted.tau.data.fill_(0.5)
    found = Relaxed(shifted)(torch.tensor([-2.0, 0.5, 1.0]).view(3, 1)).flatten()
    assert found.tolist() == [-1.0, 0.0, 0.5]


def layers_of(model: nn.Module) -> list[BinaryLayer]:
    return [module for module in model.modules() if isinstance(module, BinaryLayer)]


def values(layer: BinaryLayer) -> int:
    weight, _ = layer.binarized_weight()
    return len(weight[0].unique())


@pytest.mark.parametrize("scheme", ["adabin", "reactnet", "dorefa"])
@pytest.mark.parametrize("sides", [BOTH, frozenset(["input"]), frozenset(["weight"]), frozenset()])
def test_only_what_the_stage_says_is_binary(converted: Converted, scheme: str, sides: frozenset[str]) -> None:
    model = converted("ConvRelu", scheme)
    x = nets.pictures(2)
    seen: list[Tensor] = []
    before, keys = model(x), list(model.state_dict())
    with partly_binary(model, Stage(1, 1, Recipe(), sides)):
        for layer in layers_of(model):
            assert (values(layer) == 2) is ("weight" in sides)
            layer.register_forward_pre_hook(lambda layer, args: seen.append(layer.binarized_input(args[0])))
        model(x)
        for inputs in seen:
            assert (len(inputs.unique()) == 2) is ("input" in sides)
        model(x).sum().backward()
        gradients = [name for name, p in model.named_parameters() if p.grad is None]
        assert not gradients
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), before)


def test_a_share_of_the_layers_counts_from_the_first(converted: Converted) -> None:
    model = converted("ConvRelu")
    names = [decision.layer.name for decision in model._binarize.plan.binarized]  # type: ignore[union-attr]
    with partly_binary(model, Stage(1, 2, Recipe(), BOTH, 0.5)):
        found = [values(model.get_submodule(name)) == 2 for name in names]  # type: ignore[arg-type]
    assert found == [True, True, False, False]


def test_float_weights_decay_and_do_not_flip(converted: Converted) -> None:
    model = converted("ConvRelu", "reactnet")
    with partly_binary(model, Stage(1, 2, Recipe(), frozenset(["input"]))):
        groups = parameter_groups(model, weight_decay=0.1)
        assert "binary weights" not in {group["name"] for group in groups}
        assert Flips(model).layers == ()


def test_an_error_inside_leaves_the_model_whole(converted: Converted) -> None:
    model = converted("ConvRelu")
    before = [id(module) for module in model.modules()]
    with pytest.raises(KeyError), partly_binary(model, Stage(1, 2, Recipe(), frozenset())):
        raise KeyError
    assert [id(module) for module in model.modules()] == before
