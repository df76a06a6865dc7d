"""The table: written, read, asked; and the one that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from binarize.sources.index.fingerprints import body_hash, names_hash, sketch
from binarize.sources.index.table import SHIPPED, Entry, Index, read_index, write_index
from binarize.sources.libraries.known import known_names

BODY = {"conv.weight": (8, 3, 3, 3)}
HEADS = ("fc.weight", "fc.bias")


def shapes(classes: int | None = 10) -> dict[str, tuple[int, ...]]:
    return BODY if classes is None else BODY | {"fc.weight": (classes, 8), "fc.bias": (classes,)}


def entry(arch: str, same_as: str | None = None, classes: int = 10, **more: tuple[int, ...]) -> Entry:
    own = shapes() | more
    numbers = tuple(sketch(own))
    return Entry(arch, names_hash(own), body_hash(own, HEADS), HEADS, classes, numbers, same_as or arch)


INDEX = Index(
    {"torchvision": "1", "timm": "2"},
    (
        entry("torchvision:net"),
        entry("timm:net", "torchvision:net"),
        entry("timm:blurred"),
        entry("timm:bare", classes=0, more=(5,)),
        entry("timm:other", wide=(4, 4)),
    ),
)


def test_candidates_take_the_weights_whatever_the_number_of_classes() -> None:
    assert INDEX.candidates(shapes(10)) == ["torchvision:net", "timm:net", "timm:blurred"]
    assert INDEX.candidates(shapes(3)) == INDEX.candidates(shapes(10))
    assert INDEX.candidates(shapes(3) | {"conv.weight": (8, 1, 3, 3)}) == []


def test_weights_without_a_head_are_of_timms_models_without_one() -> None:
    assert INDEX.candidates(shapes(None)) == ["timm:net(num_classes=0)", "timm:blurred(num_classes=0)"]
    assert INDEX.candidates(shapes(None) | {"more": (5,)}) == ["timm:bare"]
    assert INDEX.candidates(shapes(7) | {"more": (5,)}) == ["timm:bare(num_classes=7)"]


def test_those_that_compute_the_same_are_one_group() -> None:
    assert INDEX.functions(INDEX.candidates(shapes())) == [["torchvision:net", "timm:net"], ["timm:blurred"]]
    assert INDEX.functions(["timm:net(num_classes=0)", "timm:blurred(num_classes=0)"]) == [
        ["timm:net(num_classes=0)"],
        ["timm:blurred(num_classes=0)"],
    ]


def test_nearest_share_names_and_shapes() -> None:
    near = INDEX.nearest(shapes() | {"wide": (4, 4), "extra": (9,)}, 2)
    assert [item.arch for item in near] == ["timm:other", "timm:blurred"]
    assert not near[0].same_names and near[0].likeness > near[1].likeness > 0
    # Another width: no shape is the same, and all names are.
    half = {name: tuple(size * 2 for size in shape) for name, shape in shapes().items()}
    assert {item.arch for item in INDEX.nearest(half, 9) if item.same_names} == {
        "torchvision:net", "timm:net", "timm:blurred",
    }  # fmt: skip
    assert INDEX.nearest({"nothing": (1,)}, 9) == []


def test_written_and_read_it_is_the_same_in_the_same_bytes(tmp_path: Path) -> None:
    write_index(INDEX, tmp_path / "one.gz")
    assert read_index(tmp_path / "one.gz") == INDEX
    write_index(INDEX, tmp_path / "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_shipped_table_knows_every_builder_of_its_version(library: str) -> None:
    import importlib.metadata

    index = read_index()
    if index.versions[library] != importlib.metadata.version(library):
        pytest.skip(f"the table was made from {library} {index.versions[library]}")
    known = {entry.arch for entry in index.entries}
    assert not [name for name in known_names(library) if f"{library}:{name}" not in known]


def test_the_shipped_table_is_small_and_each_function_has_one_name() -> None:
    assert SHIPPED.stat().st_size < 300_000
    index = read_index()
    first = {entry.arch: entry for entry in index.entries}
    for item in index.entries:
        same = first[item.same_as]
        assert (same.same_as, same.names, same.body) == (same.arch, item.names, item.body)


def test_blurring_has_no_weights_and_is_told_apart() -> None:
    same_as = {entry.arch: entry.same_as for entry in read_index().entries}
    assert same_as["timm:resnet50"] == "torchvision:resnet50"
    assert same_as["timm:resnetaa50"] == "timm:resnetaa50"
    assert same_as["timm:resnetblur50"] == "timm:resnetblur50"
