"""Schedules against the papers' tables, and their buffers in converted models."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import nets
import pytest
import torch
from torch import nn

import binarize
from binarize.errors import RuleError
from binarize.training.loop.schedules import (
    KINDS,
    Schedules,
    fourier_terms,
    noise_share,
    root,
    sharpness,
    tolerance,
)

# Training of 400 epochs, looked at before these.
EPOCHS = (0, 100, 200, 300, 399)

# (t_min, [(t, k) at each of EPOCHS]), computed in float64 from the formula.
SHARPNESS = [
    (1e-3, [(1e-3, 1e3), (1e-2, 1e2), (0.1, 10.0), (1.0, 1.0), (9.772372209558, 1.0)]),
    (
        1e-1,
        [
            (0.1, 10.0),
            (0.316227766017, 3.162277660168),
            (1.0, 1.0),
            (3.162277660168, 1.0),
            (9.885530946569, 1.0),
        ],
    ),
    (
        1e-2,
        [
            (0.01, 100.0),
            (0.056234132519, 17.782794100389),
            (0.316227766017, 3.162277660168),
            (1.778279410039, 1.0),
            (9.82878873, 1.0),
        ],
    ),
]


@pytest.mark.parametrize("t_min, table", SHARPNESS)
def test_sharpness_equals_the_table(t_min: float, table: list[tuple[float, float]]) -> None:
    for epoch, (t, k) in zip(EPOCHS, table):
        assert sharpness(epoch / 400, t_min, 10) == pytest.approx({"t": t, "k": k}, rel=1e-9)


def test_tolerance_equals_the_table() -> None:
    table = (0.85, 0.873141464734, 0.902855693632, 0.941009518774, 0.989446999691)
    found = [tolerance(epoch / 400, 0.85, 0.99)["tau"] for epoch in EPOCHS]
    assert found == pytest.approx(table, rel=1e-9)


def test_fourier_terms_equal_the_table() -> None:
    assert [fourier_terms(epoch / 400, 9, 9)["n"] for epoch in EPOCHS] == [9, 11, 13, 15, 17]


def test_the_root_grows_from_first_to_third() -> None:
    assert [root(p, 3)["o"] for p in (0.0, 0.5, 1.0)] == [1, 2, 3]


def test_rotations_are_fitted_in_each_epoch_and_turned_signs_counted_in_each_step(
    converted: Callable[..., nn.Module],
) -> None:
    model = converted("ConvRelu", "rbnn")
    fitted = {name: value for name, value in model.named_buffers() if name.endswith((".left", ".right"))}
    before = {name: value.clone() for name, value in fitted.items()}
    Schedules(model).look(new_epoch=False)
    assert all(torch.equal(fitted[name], value) for name, value in before.items())
    Schedules(model).look(new_epoch=True)
    assert fitted and not any(torch.equal(fitted[name], value) for name, value in before.items())
    model = converted("ConvRelu", "rebnn")
    turned = [value for name, value in model.named_buffers() if name.endswith(".turned")]
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".weight") and value.dim() > 1:
                value.neg_()
    Schedules(model).look(new_epoch=False)
    assert turned and all((value == 1).all() for value in turned)
    Schedules(model).look(new_epoch=False)
    assert not any(value.any() for value in turned)


def test_the_share_of_noise_equals_the_table_at_the_end_of_each_epoch() -> None:
    table = (0.099998457882, 0.085076571289, 0.049607304956, 0.014368074054, 0.0)
    found = [noise_share((epoch + 1) / 400, 0.1)["alpha"] for epoch in EPOCHS]
    assert found == pytest.approx(table, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind, t_min", [("ede", 1e-3), ("iee", 1e-2), ("rbnn", 1e-2)])
def test_usual_options_are_those_of_the_authors_code(kind: str, t_min: float) -> None:
    assert KINDS[kind].options == {"t_min": t_min, "t_max": 10.0}


def schemes_buffers(model: nn.Module) -> dict[str, float]:
    """t and k of the estimators, which start at 0.1 and 10 in every layer."""
    return {name: value.item() for name, value in model.named_buffers() if name.endswith((".t", ".k"))}


@pytest.mark.parametrize("scheme, per_layer", [("adabin", 2), ("irnet", 4), ("ienet", 4), ("bireal", 0)])
def test_set_writes_the_buffers_that_the_scheme_names(
    converted: Callable[..., nn.Module], scheme: str, per_layer: int
) -> None:
    model = converted("ConvRelu", scheme)
    layers = len(model._binarize.plan.binarized)  # type: ignore[union-attr]
    before = schemes_buffers(model)
    assert len(before) == per_layer * layers
    schedules = Schedules(model)
    schedules.set(0.5)
    t = sharpness(0.5, 1e-2 if scheme == "ienet" else 1e-3, 10)["t"]
    for name, value in schemes_buffers(model).items():
        assert value == pytest.approx(t if name.endswith(".t") else 1 / t, rel=1e-6)
    assert len(schedules) == per_layer * layers / 2


def test_the_numbers_are_part_of_the_state_dict(converted: Callable[..., nn.Module]) -> None:
    trained, other = converted("ConvRelu"), converted("ConvRelu")
    Schedules(trained).set(0.75)
    other.load_state_dict(trained.state_dict())
    assert schemes_buffers(other) == schemes_buffers(trained)


def test_a_sharper_estimator_changes_gradients_and_no_output(converted: Callable[..., nn.Module]) -> None:
    model = converted("ConvRelu")
    outputs, gradients = [], []
    for progress in (0.0, 1.0):
        Schedules(model).set(progress)
        model.zero_grad()
        outputs.append(model(nets.pictures(2)))
        outputs[-1].square().sum().backward()
        name = model._binarize.plan.binarized[0].layer.name  # type: ignore[union-attr]
        gradients.append(model.get_submodule(name).weight.grad.clone())
    assert torch.equal(*outputs)
    assert not torch.allclose(*gradients, rtol=1e-3)


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"target": "weight.estimatr", "kind": "ede"}, "no part 'estimatr'; did you mean \"estimator\"?"),
        ({"target": "wieght.estimator", "kind": "ede"}, 'did you mean "weight"?'),
        ({"target": "weight.estimator", "kind": "edee"}, 'did you mean "ede"?'),
        (
            {"target": "weight.estimator", "kind": "ede", "tmin": 1},
            "takes no 'tmin'; did you mean \"t_min\"?",
        ),
        ({"target": "weight.estimator", "kind": "recu"}, "Ede, which has no buffer 'tau' for recu"),
        ({"target": "scale", "kind": "ede"}, "the layer has no scale part"),
        ({"target": "weight.estimator", "kind": "ede", "t_min": "low"}, "expected a number"),
    ],
)
def test_a_wrong_entry_says_what_is_there(entry: dict[str, Any], message: str) -> None:
    rules = {"schema": 1, "extends": "adabin", "name": "mine", "scheme": {"schedule": [entry]}}
    model = binarize.convert(nets.seeded(nets.ALL["ConvRelu"]), rules=rules, example_input=nets.pictures(4))
    with pytest.raises(RuleError, match=re.escape(message)):
        Schedules(model)


def test_inputs_of_weights_only_layers_have_no_schedule() -> None:
    rules = [{"match": {"name": "**"}, "use": "weights-only:irnet"}]
    model = binarize.convert(
        nets.seeded(nets.ALL["ConvRelu"]), "irnet", rules=rules, example_input=nets.pictures(4)
    )
    assert len(Schedules(model)) == len(model._binarize.plan.binarized) > 0  # type: ignore[union-attr]
