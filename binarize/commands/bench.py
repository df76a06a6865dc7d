"""`binarize bench`: how fast a converted model is, beside the best that float is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.errors import UsageError
from binarize.report.units import percent, shape, size

if TYPE_CHECKING:
    from rich.table import Table

    from binarize.bench.bench import Bench

__all__ = ["bench"]

_FORMS = ("float32", "bfloat16", "int8", "openvino float32", "openvino binary", "packed", "packed, fused")


@command
def bench(
    screen: Screen,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A converted model's folder.")],
    threads: Annotated[int, typer.Option(min=1, max=64, help="Of every contender.")] = 1,
    batch: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images at a time.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved; medians count.")] = 11,
    seconds: Annotated[
        float, typer.Option(min=1, help="Fewer rounds, but three, where they would take longer.")
    ] = 30,
    source: data_options.Source = None,
    trust: options.Trust = None,
) -> None:
    """Time the packed model, layer by layer and as a whole, beside float32, bfloat16, int8 and OpenVINO."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory talks
    with screen.stage("importing"):
        import torch

        from binarize.bench.bench import bench as measure
        from binarize.checkpoint.float_model import float_model_of
        from binarize.checkpoint.load import load
        from binarize.conversion.float_names import fill_float_model
    with screen.stage("loading"):
        model = load(folder, source=source)
        twin, origin = float_model_of(folder, source=source)
        fill_float_model(twin, model)
    inputs = origin.inputs(model, batch=batch)
    if inputs is None or len(inputs[0]) != 1 or inputs[1] or not isinstance(inputs[0][0], torch.Tensor):
        raise UsageError(f"{folder}: bench times models of one input; this one was converted with several")
    x = inputs[0][0]
    with screen.stage("measuring"):
        found = measure(model, twin, x, threads=threads, rounds=rounds, seconds=seconds)
    if found.layers:
        screen.show(_layers(found))
    screen.show(_whole(found))
    for line in _facts(found):
        screen.show(line)
    for name in found.missing:
        screen.note(f"{name}: {found.reasons.get(name, 'is not there')}")
    if found.unfused:
        screen.note(f"not fused: {found.unfused}")
    screen.document(found.to_json())


def _grid(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    return table


def _layers(found: Bench) -> Table:
    forms = [form for form in _FORMS if any(form in layer.seconds for layer in found.layers)]
    table = _grid("layer, microseconds", "input", *forms, "float32 / packed")
    for layer in found.layers:
        times = [_microseconds(layer.seconds.get(form)) for form in forms]
        table.add_row(layer.name, shape(layer.shape), *times, f"{layer.speedup:.1f}x")
    total = {form: _total(found, form) for form in forms}
    whole, packed = total["float32"], total["packed"]
    ratio = "" if whole is None or packed is None else f"{whole / packed:.1f}x"
    table.add_row("sum", "", *(_microseconds(total[form]) for form in forms), ratio)
    return table


def _total(found: Bench, form: str) -> float | None:
    values = [layer.seconds.get(form) for layer in found.layers]
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _whole(found: Bench) -> Table:
    table = _grid("whole model", "milliseconds", "float32 / this", "memory", "weights")
    base = found.seconds["float32"]
    for form in _FORMS:
        if form not in found.seconds:
            continue
        seconds = found.seconds[form]
        memory, weights = found.memory.get(form), _weights(found.sizes, form)
        table.add_row(
            form,
            f"{1e3 * seconds:.2f}",
            f"{base / seconds:.2f}x",
            "" if memory is None else size(memory),
            "" if weights is None else size(weights),
        )
    return table


def _weights(sizes: Mapping[str, int], form: str) -> int | None:
    return sizes.get("packed" if form.startswith("packed") else form)


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:,.0f}"


def _facts(found: Bench) -> list[str]:
    times = "the process's time" if found.threads == 1 else "wall time"
    lines = [
        f"kernels {found.kernels}, {found.threads} thread(s), input {'×'.join(map(str, found.input_shape))}, "
        f"medians of {times} over up to {found.rounds} interleaved rounds."
    ]
    glue = sorted((step for step in found.steps if step.glue), key=lambda step: -step.seconds)
    if glue:
        largest = ", ".join(f"{step.name} ({step.what}) {1e6 * step.seconds:,.0f} us" for step in glue[:4])
        lines.append(f"Float glue: {percent(found.glue)} of the fused model's time; most of it {largest}.")
    return lines
