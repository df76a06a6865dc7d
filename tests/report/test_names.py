from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binarize.report.names import fold, fold_names


def test_equal_layers_of_repeated_blocks_become_one() -> None:
    names = [f"layer2.{block}.conv{number}" for block in range(4) for number in (1, 2)]
    keys = [name.split(".")[-1] for name in names]
    folds = fold(names, keys)
    assert [item.name for item in folds] == ["layer2.[0-3].conv1", "layer2.[0-3].conv2"]
    assert folds[1].members == (1, 3, 5, 7)


def test_layers_with_other_keys_stay_apart() -> None:
    assert [item.name for item in fold(["a.0", "a.1", "a.2"], ["x", "y", "x"])] == ["a.[0,2]", "a.1"]


def test_a_set_never_stands_for_more_than_its_members() -> None:
    names = ["a.0.c1", "a.0.c2", "a.1.c1"]
    assert [item.name for item in fold(names, [0, 0, 0])] == ["a.[0-1].c1", "a.0.c2"]


@pytest.mark.parametrize("names", [["conv01", "conv02"], ["a", "b"], []])
def test_names_without_plain_indices_are_left_alone(names: list[str]) -> None:
    assert [item.name for item in fold(names, [0] * len(names))] == names


def test_a_long_list_of_names_ends_with_a_count() -> None:
    names = ["".join(letters) for letters in product("ab", "cd", "efg")]
    assert fold_names(names, most=3) == "ace, acf and 10 more"
    assert (
        fold_names(["fc", *(f"layer{n}.0.downsample.0" for n in (2, 3, 4))])
        == "fc, layer[2-4].0.downsample.0"
    )


_NAME = st.from_regex(r"[ab](\.[0-3]){0,3}(\.c[0-2])?", fullmatch=True)


_LAYERS = st.lists(st.tuples(_NAME, st.integers(0, 1)), unique_by=lambda layer: layer[0], max_size=30)


@given(_LAYERS)
def test_folds_expand_to_exactly_the_names_they_were_made_of(layers: list[tuple[str, int]]) -> None:
    names, keys = [name for name, _ in layers], [key for _, key in layers]
    seen: list[int] = []
    for item in fold(names, keys):
        assert sorted(expand(item.name)) == sorted(names[member] for member in item.members)
        assert len({keys[member] for member in item.members}) == 1
        seen += item.members
    assert sorted(seen) == list(range(len(names)))


def expand(pattern: str) -> list[str]:
    """The names that a folded name stands for."""
    choices = []
    for piece in re.split(r"(\[[^]]*\])", pattern):
        if not piece.startswith("["):
            choices.append([piece])
            continue
        values: list[str] = []
        for run in piece[1:-1].split(","):
            first, _, last = run.partition("-")
            values += [str(value) for value in range(int(first), int(last or first) + 1)]
        choices.append(values)
    return ["".join(parts) for parts in product(*choices)]
