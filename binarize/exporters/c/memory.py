"""Where each value lies: as little memory as the values that are alive at the same time need.

Functions of each number alone write over what they read, where nothing reads it later. The others' results are put,
largest first, at the lowest place that is free as long as they live.
"""

from __future__ import annotations

from binarize.exporters.c.steps import Program, Step, Storage

__all__ = ["plan_memory"]

_IN_PLACE = frozenset(("add", "add_repeated", "subtract", "multiply"))


def plan_memory(program: Program) -> tuple[int, int]:
    """Sets all offsets. Gives back the sizes of the two pools: floats, and words of bits."""
    if program.result.storage.pool == "input":
        _copy_result(program)
    _repeat_while_adding(program)
    _write_over(program)
    program.result.storage.pool = "output"
    lives: dict[Storage, tuple[int, int]] = {}
    for i, step in enumerate(program.steps):
        for storage in [*(value.storage for value in (*step.reads, step.writes)), *step.scratch]:
            lives[storage] = (lives.get(storage, (i, i))[0], i)
    floats = _place({s: life for s, life in lives.items() if s.pool == "floats"})
    return floats, _place({s: life for s, life in lives.items() if s.pool == "bits"})


def _copy_result(program: Program) -> None:
    result = program.result
    made = type(result).floats(result.shape)
    program.steps.append(Step("copy", [result], made, "the model"))
    program.result = made


def _repeat_while_adding(program: Program) -> None:
    """Spares the copies of `a + cat([b] * k)`, which shortcuts to more channels are."""
    readers: dict[Storage, int] = {program.result.storage: 1}
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
            repeats = cat is not None and cat.function == "cat" and len({x.storage for x in cat.reads}) == 1
            if cat is not None and repeats and readers[cat.writes.storage] == 1:
                step.function, step.reads = "add_repeated", [step.reads[1 - i], cat.reads[0]]
                gone.add(cat)
                break
    program.steps = [step for step in program.steps if step not in gone]


def _write_over(program: Program) -> None:
    """Lets steps that may do so share the storage of what they read."""
    last = {program.result.storage: len(program.steps)}
    for i, step in enumerate(program.steps):
        for value in step.reads:
            last[value.storage] = max(last.get(value.storage, i), i)
    for i, step in enumerate(program.steps):
        if step.elementwise is None and step.function not in _IN_PLACE:
            continue
        for value in step.reads:
            old, new = value.storage, step.writes.storage
            if old.pool == new.pool == "floats" and last[old] == i and old.size == new.size:
                last[old] = last.get(new, i)
                _replace(program, new, old)
                break


def _replace(program: Program, old: Storage, new: Storage) -> None:
    values = [value for step in program.steps for value in (*step.reads, step.writes)]
    for value in (*values, program.result):
        if value.storage is old:
            value.storage = new


def _place(lives: dict[Storage, tuple[int, int]]) -> int:
    placed: list[Storage] = []
    for storage in sorted(lives, key=lambda s: (-s.size, lives[s])):
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
