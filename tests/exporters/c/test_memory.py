"""Places in memory: what is alive at the same time never overlaps, and no more is taken than that."""

from __future__ import annotations

import pytest
import torch
from packed_layers import conv
from torch import Tensor, nn

from binarize.exporters.c.graph import make_program
from binarize.exporters.c.memory import Memory, plan_memory
from binarize.exporters.c.signs import compare_integers, pack_signs
from binarize.exporters.c.steps import Program, Storage


class Block(nn.Module):
    """Values of several lengths of life."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.down = conv(8, 8, pad=1), conv(8, 16, pad=1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x) + x
        z = self.conv2(y)
        return torch.cat([z + self.down(y), z], 1).relu()


def planned(model: nn.Module, *shape: int) -> tuple[Program, Memory]:
    program = make_program(model.eval(), torch.zeros(1, *shape)).program
    pack_signs(program)
    compare_integers(program)
    return program, plan_memory(program)


def lives(program: Program) -> dict[Storage, tuple[int, int]]:
    found: dict[Storage, tuple[int, int]] = {}
    for i, step in enumerate(program.steps):
        for storage in [*(value.storage for value in (*step.reads, step.writes)), *step.scratch]:
            if storage.pool in ("floats", "bits"):
                found[storage] = (found.get(storage, (i, i))[0], i)
    return found


@pytest.mark.parametrize("make", [Block, lambda: nn.Sequential(Block(), conv(32, 8), Block())])
def test_what_lives_at_the_same_time_does_not_overlap(make: type[nn.Module]) -> None:
    program, memory = planned(make(), 8, 4, 4)
    found = list(lives(program).items())
    for i, (a, (first, last)) in enumerate(found):
        assert a.offset + a.size <= memory.words
        for b, (begin, end) in found[i + 1 :]:
            if first <= end and begin <= last:
                assert a.offset + a.size <= b.offset or b.offset + b.size <= a.offset


def test_a_chain_needs_its_largest_neighbours() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.ReLU()
    )
    program, memory = planned(model, 1, 5, 5)
    assert memory == Memory((4 + 2) * 25, (4 + 2) * 25)  # the last result lies in the caller's output
    assert program.results[0].storage.pool == "output"


def test_functions_of_each_number_write_over_what_they_read() -> None:
    program, memory = planned(
        nn.Sequential(nn.Flatten(), nn.Linear(3, 7), nn.ReLU(), nn.PReLU(), nn.Linear(7, 2)), 3
    )
    assert memory.words == 7
    assert [step.writes.storage.offset for step in program.steps[:3]] == [0, 0, 0]


class Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return torch.relu(y) + y


def test_what_is_read_again_is_not_written_over() -> None:
    program, memory = planned(Residual(), 6)
    assert memory.words == 6  # y; relu(y) is in the output, where y is added to it
    assert program.steps[1].writes.storage is not program.steps[0].writes.storage


def test_a_channel_repeat_that_is_added_is_not_copied() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(4, 8, pad=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + torch.cat([x, x], 1)

    program, memory = planned(Wider(), 4, 3, 3)
    assert [step.function for step in program.steps] == ["pack", "binary", "add_repeated"]
    assert memory.words == 9 + 2 * 2 + 1  # the bits of x, those of one window, and a spare word


def test_a_result_that_is_the_input_is_copied() -> None:
    program, _ = planned(nn.Sequential(nn.Flatten()), 2, 3)
    assert [step.function for step in program.steps] == ["copy"]
