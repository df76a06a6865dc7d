"""Which tensors are the head, told by two other numbers of classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from binarize.sources.index.make import default_classes, heads_of, make_index


def shapes(classes: int, **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {"conv": (8, 3), "fc.weight": (classes, 8), "box.bias": (4 * classes,)} | more


def test_heads_are_what_grows_with_the_classes() -> None:
    heads = heads_of(shapes(7), shapes(13))
    assert heads == {"fc.weight": 1, "box.bias": 4}
    assert default_classes(shapes(91), heads) == 91
    assert default_classes({"conv": (8, 3)}, heads) == 0


@pytest.mark.parametrize(
    "thirteen",
    [
        shapes(13, late=(8,)),
        shapes(13) | {"fc.weight": (13, 9)},
        shapes(13) | {"fc.weight": (14, 8)},
        shapes(13) | {"conv": (8, 13)},
        {},
    ],
)
def test_where_more_changes_there_is_no_head(thirteen: dict[str, tuple[int, ...]]) -> None:
    assert heads_of(shapes(7), thirteen) == {}


def test_the_table_is_made_and_goes_on_from_its_work_file(tmp_path: Path) -> None:
    """Three of one shape: another start of the weights is the same function, dropout in training is another one."""
    archs = ["timm:test_resnet", "timm:test_resnet(zero_init_last=False)", "timm:test_resnet(drop_rate=0.5)"]
    work = tmp_path / "work.jsonl"
    index = make_index(archs, work)
    assert [(entry.arch, entry.same_as) for entry in index.entries] == [
        (archs[0], archs[0]),
        (archs[1], archs[0]),
        (archs[2], archs[2]),
    ]
    assert (index.entries[0].heads, index.entries[0].classes) == (("fc.weight", "fc.bias"), 1000)
    lines = work.read_text()
    assert [json.loads(line).get("same") for line in lines.splitlines()] == [None, None, None, True, False]
    assert make_index(archs, work) == index
    assert work.read_text() == lines
