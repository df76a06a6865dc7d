from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import binarize
from binarize.bernoulli.layers import BernoulliLayer
from binarize.errors import RuleError
from binarize.layers.layer import BinaryLayer
from binarize.schemes.recipe import Recipe
from binarize.training.loop.freezing.masks import Freezer
from binarize.training.loop.freezing.shares import Freezing, freezing_of
from binarize.training.loop.stages import frozen_by, partly_binary, stages_of


def converted(scheme: str) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 20), nn.ReLU(), nn.Linear(20, 10),
    )  # fmt: skip
    return binarize.convert(net, scheme, example_input=torch.randn(4, 1, 6, 6), calibrate=False)


def layers_of(model: nn.Module) -> list[BinaryLayer]:
    return [layer for layer in model.modules() if isinstance(layer, BinaryLayer)]


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        ("all", [[0.5, 0.5, 0.5], [1, 1, 1]]),
        ("forward", [[0.5, 0, 0], [1, 0, 0], [1, 0.5, 0], [1, 1, 0], [1, 1, 0.5], [1, 1, 1]]),
        ("backward", [[0, 0, 0.5], [0, 0, 1], [0, 0.5, 1], [0, 1, 1], [0.5, 1, 1], [1, 1, 1]]),
        ("last_first", [[0, 0, 0.5], [0, 0, 1], [0.5, 0, 1], [1, 0, 1], [1, 0.5, 1], [1, 1, 1]]),
    ],
)
def test_shares_of_three_layers_grow_in_the_order_asked_for(order: Any, steps: list[list[float]]) -> None:
    freezing = Freezing("progressive", order=order, share=0.5)
    assert freezing.steps(3) == len(steps)
    assert [freezing.shares(step, 3) for step in range(1, len(steps) + 1)] == steps


def test_layerwise_takes_the_last_layer_first_and_each_whole() -> None:
    freezing = freezing_of({"freeze": "layerwise"}, "recipe")
    assert freezing is not None and (freezing.order, freezing.share, freezing.steps(4)) == (
        "last_first",
        1.0,
        4,
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"share": 0.1}, "share belongs to a stage with freeze"),
        ({"freeze": "progresive"}, 'did you mean "progressive"'),
        ({"freeze": "progressive", "share": 0}, "expected a number from 0.0001 to 1"),
        ({"freeze": "progressive", "refresh": 2}, "expected a number from 0 to 1"),
        ({"freeze": "progressive", "order": "forwards"}, 'did you mean "forward"'),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RuleError, match=said):
        freezing_of(keys, "recipe: stages[0]")


def test_a_stage_that_freezes_ends_with_its_last_epoch() -> None:
    (stage,) = stages_of(frozen_by(Recipe(), "progressive"))
    assert stage.freezing == Freezing("progressive")
    assert (stage.recipe.keep_epoch, stage.whole, stage.title) == ("last", True, "progressive freezing, all")
    assert stages_of(frozen_by(Recipe(), "full"))[0].recipe.keep_epoch == "best"
    with pytest.raises(RuleError, match="moving average"):
        stages_of(frozen_by(Recipe(ema=0.9), "progressive"))


@pytest.mark.parametrize("scheme", ["naive-bernoulli", "adabin"])
def test_masks_grow_by_confidence_to_the_whole(scheme: str) -> None:
    model = converted(scheme)
    recipe = Recipe(epochs=4, stages=({"freeze": "progressive", "share": 0.125, "activations": "soft"},))
    (stage,) = stages_of(recipe)
    with partly_binary(model, stage) as freezer:
        assert freezer is not None
        layer: Any = layers_of(model)[0]
        before = torch.zeros_like(layer.weight_binarizer.frozen)
        for epoch, share in enumerate((0.25, 0.5, 0.75, 1.0)):
            freezer.begin_epoch(epoch)
            mask = layer.weight_binarizer.frozen.clone()
            freezer.begin_epoch(epoch)
            assert torch.equal(mask, layer.weight_binarizer.frozen)
            assert bool(mask[before].all())
            assert freezer.share() == pytest.approx(share, abs=0.01)
            size = layer.weight.detach().abs()
            if share < 1:
                assert size[mask].min() >= size[~mask].max()
            before = mask
        values = layer.binarized_weight()[0].flatten(1)
        assert all(row.unique().numel() <= 2 for row in values)


def test_random_masks_follow_from_the_seed_and_refresh_thaws_some() -> None:
    masks = []
    for seed, refresh in ((1, 0.0), (1, 0.0), (2, 0.0), (1, 0.5)):
        layers = layers_of(converted("naive-bernoulli"))
        freezer = Freezer(
            layers, Freezing("progressive", share=0.25, select="random", refresh=refresh), seed, 4
        )
        freezer.begin_epoch(0)
        first = layers[1].weight_binarizer.frozen.clone()  # type: ignore[operator, union-attr]
        freezer.begin_epoch(1)
        masks.append((first, layers[1].weight_binarizer.frozen.clone()))  # type: ignore[operator, union-attr]
        assert freezer.share() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(masks[0][1], masks[1][1])
    assert not torch.equal(masks[0][1], masks[2][1])
    assert bool(masks[0][1][masks[0][0]].all())
    assert not bool(masks[3][1][masks[3][0]].all())


@pytest.mark.parametrize("gradient", ["none", "ste"])
@pytest.mark.parametrize("scheme", ["naive-bernoulli", "bnn"])
def test_no_step_moves_what_is_frozen_unless_it_is_still_trained(scheme: str, gradient: Any) -> None:
    model = converted(scheme)
    stage = {"freeze": "progressive", "share": 0.5, "frozen_gradient": gradient}
    (made,) = stages_of(Recipe(epochs=2, stages=(stage,)))
    with partly_binary(model, made) as freezer:
        assert freezer is not None
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        freezer.hold(optimizer)
        layer: Any = layers_of(model)[0]
        x, labels = torch.randn(16, 1, 6, 6), torch.arange(16) % 10
        for epoch in range(2):
            if epoch == 1:
                freezer.begin_epoch(0)
                before, mask = layer.weight.detach().clone(), layer.weight_binarizer.frozen
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
        assert torch.equal(layer.weight[mask], before[mask]) == (gradient == "none")
        assert not torch.equal(layer.weight[~mask], before[~mask])


@pytest.mark.parametrize("scheme", ["naive-bernoulli", "reactnet"])
def test_afterwards_the_model_is_as_its_scheme_made_it(scheme: str) -> None:
    model = converted(scheme)
    kinds = [(type(m), id(m)) for m in model.modules()]
    (stage,) = stages_of(Recipe(stages=({"freeze": "layerwise"},)))
    with partly_binary(model, stage) as freezer:
        assert freezer is not None
        freezer.begin_epoch(29)
        model(torch.randn(2, 1, 6, 6)).sum().backward()
    assert [(type(m), id(m)) for m in model.modules()] == kinds
    assert not any(isinstance(m, BernoulliLayer) and m.hard_activations for m in model.modules())
