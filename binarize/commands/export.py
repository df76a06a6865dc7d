"""`binarize export`: a converted model for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.exporters.export import FORMATS, check_format, place_of_export
from binarize.exporters.export import export as export_model

if TYPE_CHECKING:
    from rich.table import Table

    from binarize.exporters.export import Written

__all__ = ["export"]


@command
def export(
    screen: Screen,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A converted model's folder.")],
    format: Annotated[
        str,
        typer.Option("--format", "-f", metavar="|".join(FORMATS), help="Of the file."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="Default: DIR/<its name>.<ending>",
            rich_help_panel="What is written",
        ),
    ] = None,
    force: options.Force = False,
    source: data_options.Source = None,
    trust: options.Trust = None,
    trust_pickle: options.TrustSource = False,
) -> None:
    """Write the model for another runtime, check what was written, and say what it takes."""
    check_format(format, "--format")
    claim = screen.hold(place_of_export(folder, format, out), parents=out is not None)
    force = claim.written or force
    with screen.stage("exporting and checking"):
        done = export_model(folder, format, out, force=force, source=source)
    if done.written.rows:
        screen.show(_table(done.written))
    for line in done.written.lines:
        screen.show(line)
    for warning in done.written.warnings:
        screen.warn(warning)
    for file in done.files:
        screen.note(f"wrote {file}")
    screen.document(done.to_json())


def _table(written: Written) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for row in written.rows:
        table.add_row(*row)
    return table
