"""Where signs are read: steps that pack them, and integer thresholds where nothing else reads the float value.

A binary layer's result is a function of one integer a channel, its dot product. Where that result goes through
functions of each number alone and at most a max pool, and then only its comparison with the next layer's threshold
is read, the whole way is tried on every integer that the dot product can be. If the comparison changes over once, it
is a comparison of integers, and no float is computed. Exact, because the float functions themselves were tried.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarize.exporters.c.layers import scratch_for
from binarize.exporters.c.steps import Elementwise, Image, Program, Step, Value, per_channel
from binarize.kernels.geometry import Geometry

__all__ = ["compare_integers", "pack_signs"]

# Integers that are tried at a time.
_ROWS = 1 << 12


def pack_signs(program: Program) -> None:
    """Puts a step in front of each binary layer that packs its input's signs; layers that want the same share it."""
    writers = {step.writes.storage: step for step in program.steps}
    known: dict[tuple[Any, ...], Value] = {}
    steps: list[Step] = []
    for step in program.steps:
        if step.function == "binary":
            writer = writers.get(step.reads[0].storage)
            _as_image(step, step.reads[0] if writer is None else writer.writes)
            x, table, image = step.reads[0], step.tables["threshold"], step.image
            assert image is not None
            rows = int(step.numbers.get("rows", 0))
            channels, pixels = image.geometry.in_channels, image.height * image.width
            key = (x.storage, x.start, channels, rows, b"" if table is None else table.numpy().tobytes())
            if key not in known:
                known[key] = Value.bits(channels, pixels, 1 if table is None else len(table))
                numbers: dict[str, float] = {"channels": channels, "pixels": pixels, "rows": rows}
                steps.append(
                    Step("pack", [x], known[key], step.name, tables={"threshold": table}, numbers=numbers)
                )
            step.reads = [known[key]]
            step.scratch = scratch_for(image)
        steps.append(step)
    program.steps = steps


def _as_image(step: Step, made: Value) -> None:
    """A linear layer on a flattened image reads its bits as the image has them, with a window as large as that."""
    image, table, x = step.image, step.tables["threshold"], step.reads[0]
    assert image is not None
    shape = made.shape[1:]
    if len(x.shape) != 2 or x.shape[0] != 1 or made.shape[:1] != (1,) or not made.whole or not x.whole:
        return
    if len(shape) not in (2, 3) or made.size == shape[0] or made.size != x.size:
        return
    channels, (height, width) = shape[0], (1, *shape[1:])[-2:]
    if table is not None:
        each = table.reshape(len(table), channels, -1)
        if not bool((each == each[:, :, :1]).all()):
            return
        step.tables["threshold"] = each[:, :, 0].contiguous()
    lower = step.tables["lower"]
    assert lower is not None
    step.tables["lower"] = lower.reshape(lower.shape[0], channels, height, width)
    step.image = Image(Geometry(channels, lower.shape[0], (height, width)), height, width, 1, 1)
    step.reads = [x.seen_as((1, channels, height, width))]


def compare_integers(program: Program) -> None:
    """Replaces binary layers of whose result only signs are read by ones that yield these bits."""
    for pack in [step for step in program.steps if step.function == "pack"]:
        found = _way_to(pack, program)
        if found is None:
            continue
        binary, bends, pool = found
        threshold = pack.tables["threshold"]
        limits = _limits(binary, bends, threshold)
        if limits is None:
            continue
        assert binary.image is not None
        image = binary.image
        gone = {pack, *bends}
        binary.function = "binary_bits"
        binary.tables |= {"limit": limits[0], "flip": limits[1]}
        if pool is None:
            binary.writes = pack.writes
        else:
            binary.writes = Value.bits(image.geometry.out_channels, image.out_height * image.out_width)
            pool.function, pool.reads, pool.writes = "max_pool_bits", [binary.writes], pack.writes
        program.steps = [step for step in program.steps if step not in gone]


def _way_to(pack: Step, program: Program) -> tuple[Step, list[Step], Step | None] | None:
    """(binary layer, the functions of each number behind it, max pool among them), or None where it is no such way."""
    writers = {step.writes.storage: step for step in program.steps}
    readers: dict[Any, int] = {result.storage: 1 for result in program.results}
    for step in program.steps:
        for value in step.reads:
            readers[value.storage] = readers.get(value.storage, 0) + 1
    value, bends, pool = pack.reads[0], list[Step](), None
    channels = int(pack.numbers["channels"])
    if pack.tables["threshold"] is not None and len(pack.tables["threshold"]) > 1:
        return None
    while readers[value.storage] == 1 and value.storage in writers:
        step = writers[value.storage]
        if step.writes.channels != channels or not value.whole or pack.numbers["rows"]:
            return None
        if step.function == "binary":
            plain = (
                not step.numbers.get("rows")
                and step.tables["window_scale"] is None
                and not step.numbers["border"]
            )
            one_plane = step.tables["scale"] is not None and len(step.tables["scale"]) == 1
            return (step, bends[::-1], pool) if plain and one_plane else None
        if step.elementwise is not None and step.elementwise.channels_second:
            bends.append(step)
        elif step.function == "max_pool" and pool is None and all(_rising(bend) for bend in bends):
            pool = step
        else:
            return None
        value = next(x for x in step.reads if x.storage.pool != "constant")
    return None


def _rising(step: Step) -> bool:
    assert isinstance(step.elementwise, Elementwise)
    return step.elementwise.rising


def _limits(binary: Step, bends: list[Step], threshold: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """(limit, flip) per channel with: value < threshold  <=>  (dot < limit) != flip. None where there is none."""
    image, scale, shift = binary.image, binary.tables["scale"], binary.tables["shift"]
    assert image is not None and scale is not None and shift is not None
    largest = image.geometry.filter_size
    table = torch.zeros(1) if threshold is None else threshold[0]
    changes = torch.zeros(len(shift), dtype=torch.int32)
    limit = torch.full((len(shift),), largest + 1, dtype=torch.int32)
    first = before = None
    for start in range(-largest, largest + 1, _ROWS):
        dots = torch.arange(start, min(start + _ROWS, largest + 1))
        y = scale[0] * dots[:, None].float()
        y = y + shift
        for bend in bends:
            assert bend.elementwise is not None
            y = bend.elementwise.compute(y)
        lower = y < per_channel(table, y)
        first = lower[0] if first is None else first
        both = torch.cat([lower[:1] if before is None else before, lower])
        turns = both[1:] != both[:-1]
        changes += turns.sum(0)
        place = dots.int()[turns.int().argmax(0)]
        limit = torch.where(turns.any(0), place, limit)
        before = lower[-1:]
    assert first is not None
    if bool((changes > 1).any()):
        return None
    # A channel that never changes and is never lower: no dot lies under the least of them.
    limit = torch.where((changes == 0) & ~first, -largest, limit)
    flip = (changes == 1) & ~first
    return limit, flip
