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
    archs = ["timm:test_resnet", "timm:test_resnet(zero_init_last=False)", "timm:test_vit"]
    work = tmp_path / "work.jsonl"
    index = make_index(archs, work)
    # Names of one library are never taken for the same.
    assert [(entry.arch, entry.same_as) for entry in index.entries] == [(arch, arch) for arch in archs]
    assert index.entries[0].names == index.entries[1].names != index.entries[2].names
    assert (index.entries[0].heads, index.entries[0].classes) == (("fc.weight", "fc.bias"), 1000)
    lines = work.read_text()
    assert [json.loads(line)["arch"] for line in lines.splitlines()] == archs
    assert make_index(archs, work) == index
    assert work.read_text() == lines
