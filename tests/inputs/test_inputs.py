"""Inputs of every kind go through conversion, saving, loading, freezing and packing as what they are."""

from __future__ import annotations

import json
from collections import UserDict
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn

import binarize
from binarize.checkpoint.fingerprint import output_digest
from binarize.conversion.conversion import conversion_of
from binarize.layers.layer import BinaryLayer

IDS = torch.tensor([[3, 19, 7, 4], [1, 2, 19, 0]])
IMAGE = nets.pictures(2)
MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


class Mixed(nn.Module):
    """Tokens and an image, in every way that a forward may ask for them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.conv = nn.Conv2d(3, 16, 3)
        self.hidden, self.middle, self.out = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def compute(self, ids: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        assert not ids.is_floating_point()
        words = self.tokens(ids)
        if mask is not None:
            words = words * mask.unsqueeze(-1)
        both = torch.cat([words.mean(1), self.conv(image).mean((2, 3))], 1)
        return self.out(torch.relu(self.middle(torch.relu(self.hidden(both)))))


class Positional(Mixed):
    def forward(self, ids: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.compute(ids, image, mask)


class OneDict(Mixed):
    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"logits": self.compute(batch["ids"], batch["image"]), "none": None, "list": [batch["image"]]}


class KeywordOnly(Mixed):
    def forward(self, *, ids: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.compute(ids, image, mask)


class Nested(Mixed):
    def forward(self, pair: tuple[Tensor, list[Tensor]], scale: float = 1.0) -> tuple[Tensor, None]:
        ids, (image, mask) = pair
        return self.compute(ids, image, mask) * scale, None


CASES = [
    (Positional, (IDS, IMAGE)),
    (Positional, (IDS, IMAGE, None)),
    (Positional, ((IDS, IMAGE), {"mask": MASK})),
    (Positional, {"ids": IDS, "image": IMAGE, "mask": MASK}),
    (Positional, UserDict(ids=IDS, image=IMAGE)),
    (OneDict, ({"ids": IDS, "image": IMAGE},)),
    (KeywordOnly, {"ids": IDS.int(), "image": IMAGE}),
    (Nested, ((IDS, [IMAGE, MASK]), 2.0)),
]
NAMES = ["two", "optional", "both", "keywords", "mapping", "one dict", "keywords only", "nested"]


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    from binarize.inputs.arguments import arguments_of

    return arguments_of(example)


def equal(a: Any, b: Any) -> bool:
    from binarize.modules.outputs import tensors_in

    ours, theirs = tensors_in(a), tensors_in(b)
    return len(ours) == len(theirs) > 0 and all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(("cls", "example"), CASES, ids=NAMES)
def test_whatever_the_forward_takes_it_is_converted_saved_loaded_and_packed(
    cls: type[Mixed], example: Any, tmp_path: Path
) -> None:
    model = binarize.convert(nets.seeded(cls), "adabin", example_input=example)
    assert model.report.passed and model.report.capture == "meta"
    assert isinstance(model.middle, BinaryLayer)
    args, kwargs = arguments(example)
    before = model.eval()(*args, **kwargs)
    binarize.save(model, tmp_path / "net")
    record = json.loads((tmp_path / "net" / "binarize.json").read_text())
    assert record["fingerprint"]["output"] is not None
    again = binarize.load(tmp_path / "net", model=cls())
    assert equal(again(*args, **kwargs), before)
    packing = binarize.pack(tmp_path / "net", model=cls())
    assert packing.drift is not None
    packed = binarize.load_packed(tmp_path / "net", model=cls())
    assert equal(packed(*args, **kwargs), binarize.freeze(again)(*args, **kwargs))


@pytest.mark.parametrize(("cls", "example"), CASES, ids=NAMES)
def test_made_up_inputs_are_of_the_same_kinds(cls: type[Mixed], example: Any) -> None:
    model = binarize.convert(nets.seeded(cls), "adabin", example_input=example)
    conversion = conversion_of(model)
    assert conversion is not None
    made = conversion.source.inputs(model)
    assert made is not None
    given, found = (torch.utils._pytree.tree_flatten(item) for item in (arguments(example), made))
    assert given[1] == found[1]
    for mine, its in zip(given[0], found[0], strict=True):
        if isinstance(mine, Tensor):
            assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
        else:
            assert mine == its
    first = output_digest(model, conversion.source)
    assert first is not None and output_digest(model, conversion.source) == first


def test_shapes_alone_are_enough_with_names_and_types() -> None:
    model = binarize.convert(
        nets.seeded(KeywordOnly), "adabin", input_shape=["ids=2,4:int64", "image=2,3,9,9", "mask=2,4:bool"]
    )
    assert model.report.capture == "meta"
    conversion = conversion_of(model)
    assert conversion is not None
    assert conversion.source.keyword_shapes == {"ids": (2, 4), "image": (2, 3, 9, 9), "mask": (2, 4)}


def test_several_positional_shapes_are_given_as_tuples() -> None:
    class Two(Mixed):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            both = torch.cat([self.conv(left).mean((2, 3)), self.conv(right).mean((2, 3))], 1)
            return self.out(self.middle(self.hidden(both)))

    model = binarize.convert(nets.seeded(Two), "adabin", input_shape=[(1, 3, 8, 8), (1, 3, 5, 5)])
    assert (model.report.capture, model.report.row("hidden").binary) == ("meta", True)


def test_an_object_among_the_arguments_is_converted_but_no_output_is_remembered(tmp_path: Path) -> None:
    class Settings:
        scale = 2.0

    class Odd(Mixed):
        def forward(self, image: Tensor, settings: Settings) -> Tensor:
            pooled = self.conv(image).mean((2, 3))
            return self.out(self.middle(self.hidden(torch.cat([pooled, pooled], 1)))) * settings.scale

    model = binarize.convert(nets.seeded(Odd), "adabin", example_input=(IMAGE, Settings()))
    assert model.report.passed
    binarize.save(model, tmp_path / "net")
    assert json.loads((tmp_path / "net" / "binarize.json").read_text())["fingerprint"]["output"] is None
    again = binarize.load(tmp_path / "net", model=Odd())
    assert torch.equal(again.eval()(IMAGE, Settings()), model.eval()(IMAGE, Settings()))
