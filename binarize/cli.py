"""The command `binarize`: every verb, in the order one uses them. The verbs are in binarize/commands/."""

from __future__ import annotations

import atexit
import gc
from typing import Annotated

import typer

from binarize.commands.bench import bench
from binarize.commands.calibrate import calibrate
from binarize.commands.convert import convert, plan
from binarize.commands.demo import demo
from binarize.commands.doctor import doctor, version
from binarize.commands.evaluate import evaluate
from binarize.commands.export import export
from binarize.commands.finetune import finetune
from binarize.commands.pack import pack
from binarize.commands.report import report
from binarize.commands.rules import rules_app
from binarize.commands.schemes import schemes_app
from binarize.commands.study import study
from binarize.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="binarize",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"binarize {__version__}")
        raise typer.Exit


@app.callback()
def binarize(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn any float PyTorch model into a binary neural network one can train, trust and ship."""


app.command(rich_help_panel="Convert")(convert)
app.command(rich_help_panel="Convert")(plan)
app.command("inspect", hidden=True)(plan)
app.add_typer(rules_app, name="rules", rich_help_panel="Convert")
app.add_typer(schemes_app, name="schemes", rich_help_panel="Convert")
app.command(rich_help_panel="Train")(calibrate)
app.command(rich_help_panel="Train")(finetune)
app.command("eval", rich_help_panel="Train")(evaluate)
app.command(rich_help_panel="Train")(study)
app.command(rich_help_panel="Deploy")(pack)
app.command(rich_help_panel="Deploy")(export)
app.command(rich_help_panel="Look")(report)
app.command(rich_help_panel="Look")(bench)
app.command(rich_help_panel="Help")(demo)
app.command(rich_help_panel="Help")(doctor)
app.command(rich_help_panel="Help")(version)


def main() -> None:
    """The process of one command. What only holds for a process that is about to end is said here, and nowhere else."""
    # At the end nothing is searched for circles: the process is about to give back all of its memory.
    atexit.register(gc.freeze)
    app(prog_name="binarize")
