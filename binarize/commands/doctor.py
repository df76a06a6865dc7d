"""`binarize doctor` and `binarize version`."""

from __future__ import annotations

import typer

from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.version import __version__

__all__ = ["doctor", "version"]

_STYLES = {"ok": "green", "missing": "yellow", "bad": "bold red"}


@command
def doctor(screen: Screen) -> None:
    """Versions, devices, what is missing and how to install it. Exit code 1 if something is broken."""
    from rich.table import Table
    from rich.text import Text

    from binarize.doctor import examine

    with screen.stage("looking around"):
        findings = examine()
    table = Table.grid(padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(
            finding.topic,
            Text(finding.state, _STYLES[finding.state]),
            Text(finding.found + (f"\n{finding.remedy}" if finding.remedy else "")),
        )
    screen.show(table)
    screen.document([finding.to_json() for finding in findings])
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


@command
def version(screen: Screen) -> None:
    """The version of binarize."""
    screen.show(f"binarize {__version__}")
    screen.document({"version": __version__})
