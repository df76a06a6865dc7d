"""What the quick suite runs of a grid."""

from __future__ import annotations

from itertools import product

from sampling import sample

GRID = list(product(range(3), range(4), range(5)))
NAMES = ["-".join(map(str, cell)) for cell in GRID]
CELLS = [dict(zip("abc", cell)) for cell in GRID]


def test_edges_stay_and_each_value_of_each_parameter_stands_in_a_test() -> None:
    found = sample(NAMES, CELLS)
    assert found[0] == "0-0-0" and found[-1] == "2-3-4"
    for place, count in enumerate((3, 4, 5)):
        assert {name.split("-")[place] for name in found} == {str(value) for value in range(count)}
    assert len(found) < 9


def test_a_sample_is_the_same_each_time_and_in_the_order_of_the_grid() -> None:
    found = sample(NAMES, CELLS, 12)
    assert found == sample(NAMES, CELLS, 12) == [name for name in NAMES if name in found]
    assert len(found) == 12


def test_named_tests_stay() -> None:
    assert sample(NAMES, CELLS, 3, keep=["1-1-1"])[1] == "1-1-1"


def test_a_case_that_is_added_moves_no_other_of_a_list() -> None:
    names = [f"case{i}" for i in range(20)]
    cells = [{"case": i} for i in range(20)]
    before = sample(names, cells, 8)
    after = sample(["more", *names], [{"case": 20}, *cells], 9)
    assert len(set(before) - set(after)) <= 1


def test_a_number_above_the_grid_takes_all_of_it() -> None:
    assert sample(NAMES, CELLS, 100) == NAMES
