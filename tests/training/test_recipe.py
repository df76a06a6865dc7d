"""Recipes: where they come from, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
from torch import nn

from binarize.errors import RuleError
from binarize.rules.files import builtin_rule_sets
from binarize.rules.load import load_rule_set
from binarize.rules.schema import json_schema
from binarize.schemes.recipe import Recipe
from binarize.training.recipe import recipe_of


def test_a_recipe_has_every_key_that_a_rule_file_may_have() -> None:
    keys = json_schema()["definitions"]["Recipe"]["properties"]
    assert set(keys) <= {f.name for f in fields(Recipe)}


@pytest.mark.parametrize("name", builtin_rule_sets())
def test_every_shipped_recipe_is_one(name: str) -> None:
    for scheme in load_rule_set(name).schemes.values():
        for data in (scheme.training, scheme.training_paper):
            recipe = Recipe().changed(data)
            for key, value in data.items():
                assert recipe.to_json()[key] == value


def test_a_converted_model_brings_the_recipe_of_its_scheme(converted: Callable[..., nn.Module]) -> None:
    model = converted("ConvRelu", "adabin")
    assert recipe_of(model).teacher == "source"
    assert recipe_of(model).warmup == 0.05
    assert recipe_of(model, published=True).epochs == 400
    assert recipe_of(nn.Linear(2, 2)) == Recipe()


def test_none_leaves_a_key_as_it_is() -> None:
    assert Recipe(lr=0.5).changed({"lr": None, "epochs": 3}) == Recipe(lr=0.5, epochs=3)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean \"epochs\"?"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; expected cosine or linear"),
        ({"epochs": 0}, "epochs is 0; expected a number from 1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"teacher_weight": 1.5}, "teacher_weight is 1.5; expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_an_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RuleError) as caught:
        Recipe().changed(changes)
    assert message in str(caught.value)
