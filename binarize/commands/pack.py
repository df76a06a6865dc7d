"""`binarize pack`: a converted model's weights at one bit each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import choices, data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.errors import UsageError, did_you_mean
from binarize.report.units import percent, plural, size, times

if TYPE_CHECKING:
    from rich.table import Table

    from binarize.packed.file.packed_form import Packing, Sizes

__all__ = ["pack"]

_REST = ("fp32", "fp16", "int8")


@command
def pack(
    screen: Screen,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A converted model's folder.")],
    rest: Annotated[
        str,
        typer.Option(
            metavar="|".join(_REST),
            help="How weights that stay float are kept.",
            rich_help_panel="What is written",
        ),
    ] = "fp32",
    force: options.Force = False,
    source: data_options.Source = None,
    trust: options.Trust = None,
    trust_pickle: options.TrustSource = False,
) -> None:
    """Write DIR/packed.safetensors: one bit a binary weight, BatchNorm folded; checked bit for bit."""
    if rest not in _REST:
        raise UsageError(f'--rest "{rest}" is none of {", ".join(_REST)}{did_you_mean(rest, _REST)}')
    with screen.stage("importing"):
        from binarize.packed.packing import PACKED
        from binarize.packed.packing import pack as pack_folder
        from binarize.report.words import next_command
    force = screen.hold(folder / PACKED).written or force
    # Nobody else replaces the folder meanwhile.
    screen.hold(folder)
    with screen.stage("packing and checking"):
        packing = pack_folder(folder, rest=rest, force=force, source=source)  # type: ignore[arg-type]
    screen.show(_sizes(packing.sizes))
    for line in _facts(packing):
        screen.show(line)
    for name, why in packing.frozen.kept.items():
        screen.warn(f"{name} stays as it was trained: {why}")
    if packing.frozen.unseen:
        screen.note(f"BatchNorm behind layers was not folded: {packing.frozen.unseen}")
    if packing.needs is None:
        screen.note("the file is the whole model: binarize.load_packed needs nothing else")
    else:
        screen.note(f"reading it takes {folder} as well: {packing.needs}")
    if packing.replaced is not None:
        screen.note(f"replaced {packing.path}, which {packing.replaced}")
    else:
        screen.note(f"wrote {packing.path}")
    # The model is loaded again with what was said here.
    words = {"source": source, "trust_pickle": trust_pickle}
    screen.next(next_command("export", folder, choices.program(), **words))  # type: ignore[arg-type]
    screen.document(packing.to_json())


def _sizes(sizes: Sizes) -> Table:
    from rich.table import Table

    rows = [
        ("float", sizes.float_bytes, "the source"),
        ("latent", sizes.latent_bytes, "in training"),
        ("int8", sizes.int8_bytes, "at one byte a binary weight"),
        ("theory", sizes.theory, "one bit a binary weight, and the other numbers"),
        ("packed", sizes.file, f"the file: {percent(sizes.over_theory)} over theory"),
    ]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for name, number, words in rows:
        less = times(sizes.float_bytes, number) if number != sizes.float_bytes else ""
        table.add_row(name, size(number), less, words)
    return table


def _facts(packing: Packing) -> list[str]:
    layers = plural(packing.layers, "packed layer")
    if packing.float_inputs:
        layers += f", {packing.float_inputs} of them with float inputs"
    folded = len(packing.frozen.folded)
    lines = [f"{layers}; {plural(folded, 'BatchNorm')} behind them folded, read back bit for bit."]
    drift = packing.drift
    if drift is None:
        return lines
    text = f"Against the trained model on {plural(drift.inputs, 'random input')}: "
    if drift.same_top1 is not None:
        text += f"same class on {percent(drift.same_top1)}, "
    text += f"{drift.turned:,} of {drift.signs:,} signs differ"
    rounded = "" if packing.rest == "fp32" else f", with what stays float as {packing.rest}"
    return [*lines, f"{text}{rounded}."]
