"""Arguments are described, written down and made again with their structure, types and ranges."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from binarize.errors import UsageError
from binarize.inputs.arguments import Arguments, TensorKind, parse_arguments

LINEAR = nn.Linear(2, 2)


def described(*args: object, **kwargs: object) -> Arguments:
    found = Arguments.of(args, kwargs, torch.float32)
    assert found is not None
    return found


def test_whole_numbers_stay_whole_and_in_their_range() -> None:
    ids = torch.tensor([[3, 9, 4]])
    assert described(ids).kinds == [TensorKind((1, 3), "int64", 3, 9)]
    made = described(ids.expand(50, 3)).make(LINEAR)[0][0]
    assert made.dtype == torch.int64
    assert (int(made.min()), int(made.max())) == (3, 9)


def test_a_constant_mask_stays_constant_and_floats_become_noise() -> None:
    (mask, x), _ = described(torch.ones(2, 3), torch.arange(6.0)).make(LINEAR)
    assert torch.equal(mask, torch.ones(2, 3))
    assert x.shape == (6,)
    assert not torch.equal(x, torch.arange(6.0))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.float64, torch.complex64, torch.float16]
)
def test_types_survive(dtype: torch.dtype) -> None:
    example = torch.tensor([0, 1, 1, 0]).to(dtype)
    data = json.loads(json.dumps(described(example).to_json()))
    assert Arguments.from_json(data).make(LINEAR)[0][0].dtype == dtype


def test_the_models_precision_is_followed_where_the_example_had_it() -> None:
    kinds = described(torch.randn(2, 2), torch.randn(2, 2, dtype=torch.float64))
    (x, y), _ = kinds.make(nn.Linear(2, 2).half())
    assert (x.dtype, y.dtype) == (torch.float16, torch.float64)


def test_nested_arguments_survive_json_and_are_made_in_their_structure() -> None:
    batch = {"image": torch.randn(2, 3), "size": (4, None), "more": [torch.tensor([1]), "left"]}
    found = described(batch, flag=True)
    again = Arguments.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    (made,), keywords = again.make(LINEAR)
    assert made["image"].shape == (2, 3)
    assert made["size"] == (4, None)
    assert made["more"][0].tolist() == [1]
    assert made["more"][1] == "left"
    assert keywords == {"flag": True}


def test_an_object_that_no_file_can_hold_is_not_described() -> None:
    assert Arguments.of((torch.ones(1), object()), {}, torch.float32) is None
    assert Arguments.of(({1: torch.ones(1)},), {}, torch.float32) is None


def test_another_batch_is_made_of_what_has_one() -> None:
    (x, table), _ = described(torch.randn(1, 5), torch.randn(7, 2)).make(LINEAR, batch=4)
    assert (x.shape, table.shape) == ((4, 5), (7, 2))


def test_the_same_seed_gives_the_same_numbers() -> None:
    kinds = Arguments((TensorKind((3, 4)),))
    assert torch.equal(kinds.make(LINEAR)[0][0], kinds.make(LINEAR)[0][0])
    assert not torch.equal(kinds.make(LINEAR)[0][0], kinds.make(LINEAR, seed=1)[0][0])
    assert not kinds.make(LINEAR, noise=False)[0][0].any()


def test_without_data_the_arguments_have_none_either() -> None:
    (x,), _ = Arguments((TensorKind((2, 3), "int64", 0, 4),)).make(LINEAR.to_empty(device="meta"))
    assert x.is_meta and x.dtype == torch.int64
    LINEAR.to_empty(device="cpu")


def test_shapes_names_and_types_are_read_from_text() -> None:
    found = parse_arguments(["1,3,8,8", "2x5", "mask=1,16:bool"])
    assert found == Arguments(
        (TensorKind((1, 3, 8, 8)), TensorKind((2, 5))), {"mask": TensorKind((1, 16), "bool")}
    )


@pytest.mark.parametrize(
    "text", ["", "1,,3", "0,3", "1,-3", "1.5", "a=b", "1,3:", "1,3:integer", "x=", "1;3"]
)
def test_what_is_no_shape_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--input-shape"):
        parse_arguments([text])


def test_whole_numbers_of_no_known_range_are_those_that_every_embedding_holds() -> None:
    net = nn.ModuleList([nn.Embedding(3, 2), nn.Embedding(50, 2)])
    (ids,), _ = parse_arguments(["40,5:int64"]).make(net)
    assert set(ids.unique().tolist()) == {0, 1, 2}
