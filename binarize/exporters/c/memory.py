"""Where each value lies: one memory for all of them, as little as the values that are alive at the same time need.

Functions of each number alone write over what they read, where nothing reads it later. The other results are put, one by
one, at the lowest place that is free as long as they live; of several orders of doing so the best is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from binarize.exporters.c.arithmetic import FUNCTIONS
from binarize.exporters.c.steps import Program, Step, Storage, Value

__all__ = ["Memory", "largest_step", "plan_memory"]

_IN_PLACE = frozenset(
    ("add_repeated", "put", "softmax", "log_softmax", "running_sum", "standardize", *FUNCTIONS)
)
_IN_MEMORY = ("floats", "bits")
# Orders of placing that are tried where the simple ones leave gaps.
_TRIES = 200


@dataclass(frozen=True)
class Memory:
    """Sizes in words of four bytes: of all, and of the largest sum of values that are alive in one step."""

    words: int
    largest_step: int


def plan_memory(program: Program) -> Memory:
    """Sets all offsets."""
    _repeat_while_adding(program)
    _write_over(program)
    lives = _lives(program)
    least = largest_step(program)
    # A word more where bits are shifted across words: compilers cannot see that none is written behind the last one.
    spare = int(any(step.scratch for step in program.steps))
    return Memory(_best(lives, least) + spare, least + spare)


def _lives(program: Program) -> dict[Storage, tuple[int, int]]:
    """The first and the last step of each storage."""
    lives: dict[Storage, tuple[int, int]] = {}
    for i, step in enumerate(program.steps):
        for storage in [*(value.storage for value in (*step.reads, step.writes)), *step.scratch]:
            if storage.pool in _IN_MEMORY:
                lives[storage] = (lives.get(storage, (i, i))[0], i)
    return lives


def largest_step(program: Program) -> int:
    """The most words that are alive in one step: no plan takes less."""
    lives = _lives(program)
    return max(
        (
            sum(storage.size for storage, (first, last) in lives.items() if first <= i <= last)
            for i in range(len(program.steps))
        ),
        default=0,
    )


def _repeat_while_adding(program: Program) -> None:
    """Spares the copies of `a + cat([b] * k)`, which shortcuts to more channels are."""
    readers: dict[Storage, int] = {result.storage: 1 for result in program.results}
    for step in program.steps:
        for value in step.reads:
            readers[value.storage] = readers.get(value.storage, 0) + 1
    writers = {step.writes.storage: step for step in program.steps}
    gone = set[Step]()
    for step in program.steps:
        if step.function != "add":
            continue
        for i in (1, 0):
            cat = writers.get(step.reads[i].storage)
            if cat is None or cat.function != "cat" or readers[cat.writes.storage] > 1 or not _repeats(cat):
                continue
            step.function, step.reads = "add_repeated", [step.reads[1 - i], cat.reads[0]]
            gone.add(cat)
            break
    program.steps = [step for step in program.steps if step not in gone]


def _repeats(cat: Step) -> bool:
    """Whether it puts one whole value behind itself, as often as there is room."""
    first = cat.reads[0]
    same = all(x.storage is first.storage and x.start == first.start and x.strides is None for x in cat.reads)
    behind = all(cat.numbers[str(i)] == i * first.size for i in range(len(cat.reads)))
    return same and behind


def _write_over(program: Program) -> None:
    """Lets steps that may do so share the storage of what they read."""
    last = {result.storage: len(program.steps) for result in program.results}
    for i, step in enumerate(program.steps):
        for value in step.reads:
            last[value.storage] = max(last.get(value.storage, i), i)
    for i, step in enumerate(program.steps):
        name = step.function.removesuffix("_spread")
        if step.elementwise is None and name not in _IN_PLACE:
            continue
        for value in step.reads[:1] if name == "put" else step.reads:
            old, new = value.storage, step.writes.storage
            if old.pool == "floats" and last[old] == i and _may_write_over(step, value):
                last[new] = last.get(new, i)
                _replace(program, old, new)
                break


def _may_write_over(step: Step, value: Value) -> bool:
    """Whether each number is read, of this storage, no later than its own place is written."""
    others = [x for x in step.reads if x is not value and x.storage is value.storage]
    same_place = all(x.whole and x.shape == value.shape for x in others)
    own = step.writes.storage.pool in ("floats", "output")
    return own and value.whole and value.size == step.writes.size and step.writes.whole and same_place


def _replace(program: Program, old: Storage, new: Storage) -> None:
    values = [value for step in program.steps for value in (*step.reads, step.writes)]
    for value in (*values, *program.results):
        if value.storage is old:
            value.storage = new


def _best(lives: dict[Storage, tuple[int, int]], least: int) -> int:
    """Places all storages in the order that takes the least memory, of those that are tried."""
    best, chosen = -1, list[Storage]()
    for order in _orders(lives):
        size = _place(order, lives)
        if best < 0 or size < best:
            best, chosen = size, order
        if best <= least:
            break
    order = chosen
    _place(order, lives)
    for _ in range(_TRIES if best > least else 0):
        # What sticks out goes first in the next try.
        top = max(order, key=lambda s: s.offset + s.size)
        order = [top, *(s for s in order if s is not top)]
        size = _place(order, lives)
        if size < best:
            best, chosen = size, order
        if best <= least:
            break
    return max(_place(chosen, lives), 0)


def _orders(lives: dict[Storage, tuple[int, int]]) -> Iterator[list[Storage]]:
    def by(key: Callable[[Storage], tuple[float, ...]]) -> list[Storage]:
        return sorted(lives, key=key)

    yield by(lambda s: (-s.size, *lives[s]))
    yield by(lambda s: (lives[s][0] - lives[s][1], -s.size, lives[s][0]))
    yield by(lambda s: (-s.size * (1 + lives[s][1] - lives[s][0]), lives[s][0]))
    yield by(lambda s: (lives[s][0], -s.size))
    yield by(lambda s: (-lives[s][1], -s.size))


def _place(order: list[Storage], lives: dict[Storage, tuple[int, int]]) -> int:
    placed: list[Storage] = []
    for storage in order:
        first, end = lives[storage]
        beside = [other for other in placed if lives[other][0] <= end and first <= lives[other][1]]
        offset = 0
        for other in sorted(beside, key=lambda s: s.offset):
            if offset + storage.size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        storage.offset = offset
        placed.append(storage)
    return max((storage.offset + storage.size for storage in placed), default=0)
