"""Which tests of a grid the quick suite runs: its edges, and a sample that is the same on every machine."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from zlib import crc32

__all__ = ["sample"]

Cell = Mapping[str, Hashable]


def sample(
    names: Sequence[str], cells: Sequence[Cell], n: int | None = None, keep: Collection[str] = ()
) -> list[str]:
    """The names of the tests to run, in their order: first, last, those in `keep`, and a cover of the values.

    `cells`: of each test the values of its parameters. The cover takes the test that brings the most values
    which no chosen one has, until every value stands in a chosen test, or n are chosen. Where n is more than
    that takes, tests by the checksum of their names follow, so that a case that is added moves no other.
    """
    left = sorted(range(len(names)), key=lambda i: (crc32(names[i].encode()), i))
    values = [set(cell.items()) for cell in cells]
    chosen = {i for i in left if i in (0, len(names) - 1) or names[i] in keep}
    seen = set().union(*(values[i] for i in chosen))
    left = [i for i in left if i not in chosen]
    while left and (n is None or len(chosen) < n):
        best = max(left, key=lambda i: len(values[i] - seen))
        if n is None and not values[best] - seen:
            break
        chosen.add(best)
        left.remove(best)
        seen |= values[best]
    return [name for i, name in enumerate(names) if i in chosen]
