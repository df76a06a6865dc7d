"""What tells one saved model from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nets
import pytest
import torch
from torch import Tensor, nn

from binarize.checkpoint.fingerprint import output_digest, record_digest
from binarize.conversion.source_record import SourceRecord
from binarize.inputs.arguments import Arguments, TensorKind
from binarize.modules.tensors import is_permuted, tensor_digest, unique_tensors

Converted = Callable[..., nn.Module]
X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": X, "c": X},
        {"a": X.view(3, 2), "b": X},
        {"a": X.double(), "b": X},
        {"a": -X, "b": X},
        {"a": X},
        # Bits count, not values.
        {"a": torch.where(X == 0, -0.0, X), "b": X},
    ],
)
def test_names_shapes_types_and_bits_all_count(tensors: dict[str, Tensor]) -> None:
    assert tensor_digest(tensors) != tensor_digest({"a": X, "b": X})


def test_order_and_memory_layout_do_not_count() -> None:
    assert tensor_digest({"b": X, "a": X.t().contiguous().t()}) == tensor_digest({"a": X, "b": X})


def test_the_record_counts_but_for_its_fingerprint() -> None:
    record = {"plan": [1, {"a": 2}], "seed": 0}
    assert record_digest({**record, "fingerprint": {"x": 1}}) == record_digest(record)
    assert record_digest({"seed": 0, "plan": [1, {"a": 2}]}) == record_digest(record)
    assert record_digest({**record, "seed": 1}) != record_digest(record)


@pytest.mark.parametrize(
    "tensor, permuted",
    [
        (X, False),
        (X.t(), True),
        (torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last), True),
        (torch.zeros(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d), True),
        (X[:, :2], False),
        (torch.ones(1).expand(3), False),
        (torch.tensor(1.0), False),
        (torch.empty(0, 3), False),
    ],
)
def test_only_full_memory_in_another_order_is_remembered(tensor: Tensor, permuted: bool) -> None:
    assert is_permuted(tensor.shape, tensor.stride()) == permuted


def test_tied_tensors_are_written_once_and_extra_state_is_no_tensor() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"note": "hello"}

    model = nn.Sequential(Extra(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert list(unique_tensors(model)) == ["0.weight", "0.bias", "1.bias"]


def test_the_output_counts_with_every_weight(converted: Converted) -> None:
    model = converted("BasicBlocks")
    origin = model._binarize.source
    before = output_digest(model, origin)
    assert before is not None and output_digest(model, origin) == before
    assert output_digest(model.train(), origin) == before and model.training
    with torch.no_grad():
        model.head.fc.bias[3] += 1e-3
    assert output_digest(model, origin) != before


def test_inputs_that_nobody_can_make_up_give_no_output(converted: Converted) -> None:
    model = converted("ConvRelu")
    origin = model._binarize.source
    assert output_digest(model, replace(origin, example=None)) is None
    assert output_digest(model, replace(origin, example=Arguments((TensorKind((2, 3)),)))) is None


def test_keyword_inputs_and_named_outputs_give_an_output_too(converted: Converted) -> None:
    model = converted("Keywords")
    origin = model._binarize.source
    before = output_digest(model, origin)
    assert before is not None and output_digest(model, origin) == before


def test_a_source_record_survives_json() -> None:
    import json

    nested = {
        "ids": TensorKind((2, 5), "int64", 0, 9),
        "pair": [TensorKind((2,)), None],
        "scale": (0.5, "x", True),
    }
    example = Arguments((TensorKind((2, 3, 4, 4)), None), nested)
    record = SourceRecord("net.pt", "pickle", "a.B", None, 7, None, None, "0" * 64, example)
    assert SourceRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_report_of_the_users_own_is_not_overwritten() -> None:
    import binarize

    class Reporting(nets.ConvBnRelu):
        def report(self) -> str:
            return "mine"

    model = binarize.convert(nets.seeded(Reporting), "adabin", example_input=nets.pictures(4))
    assert model.report() == "mine"
    assert model._binarize.report.rows
