"""`binarize study`: many trainings of one question, by Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binarize.commands.console import data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.errors import CheckError

if TYPE_CHECKING:
    from rich.table import Table

    from binarize.studies.study import Study

__all__ = ["study"]

_CHOOSE, _MACHINE = "What is run", "Machine"


@command
def study(
    screen: Screen,
    grid: Annotated[Path, typer.Argument(metavar="GRID.yaml", help="What is varied, and how.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="key=VALUE",
            help="A setting of every trial, or the values of an axis; repeatable.",
            rich_help_panel=_CHOOSE,
        ),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Trials of such names.", rich_help_panel=_CHOOSE)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the trials.", rich_help_panel=_CHOOSE)
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run those that failed once more.", rich_help_panel=_CHOOSE)
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|auto", help="A Ray cluster that runs.", rich_help_panel=_MACHINE),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="So many trials at once.", rich_help_panel=_MACHINE),
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(min=0.1, help="Of each trial, its threads too.", rich_help_panel=_MACHINE)
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="Of each trial; 0.5 shares one.", rich_help_panel=_MACHINE)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, mps.", rich_help_panel=_MACHINE)
    ] = None,
    data_root: data_options.DataRoot = Path("data"),
    download: data_options.Download = False,
    trust: options.Trust = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Default: ./study-NAME.", rich_help_panel="What is written"),
    ] = None,
) -> None:
    """Train every choice of a grid, each once, and put what they came to into one table and one plot.

    The same command goes on with a study that was interrupted.
    """
    with screen.stage("importing"):
        from binarize.studies.grid.read import read_grid
        from binarize.studies.study import study as run
    read = read_grid(grid, overrides or ())
    own = read.resources
    resources = replace(
        own,
        cpus=own.cpus if cpus is None else cpus,
        gpus=own.gpus if gpus is None else gpus,
        device=device or own.device,
        root=str(data_root.absolute()),
        download=download,
    )
    if not dry_run:
        screen.note("Ray runs what is not there yet; after an interruption the same command goes on")
    done: list[Mapping[str, Any]] = []

    def listen(result: Mapping[str, Any], number: int, of: int) -> None:
        done.append(result)
        if result["state"] == "failed":
            screen.warn(f"[{number}/{of}] {result['name']}: {result['reason']}")
        else:
            screen.show(f"[{number}/{of}] {result['name']}  {_came_to(result)}")

    found = run(
        read,
        out,
        changes=overrides or (),
        only=only,
        dry_run=dry_run,
        retry=retry,
        address=address,
        jobs=jobs,
        resources=resources,
        listen=listen,
    )
    if dry_run:
        _list(screen, found)
        return
    if not done:
        screen.note("every trial is there already")
    screen.show(_table(found))
    _say_files(screen, found)
    screen.document(
        {"folder": str(found.folder), "rows": [row.to_json() for row in found.rows], "failed": found.failures}
    )
    if found.failures:
        screen.error(_failures(found.failures))
        # The results are the one JSON document, failures and all.
        raise typer.Exit(CheckError.exit_code)


def _came_to(result: Mapping[str, Any]) -> str:
    shown, where = (
        (result["top1"], "") if result["top1"] is not None else (result["val_top1"], " of those held out")
    )
    accuracy = "no images to look at" if shown is None else f"top-1 {100 * shown:.2f} %{where}"
    return f"{accuracy}  {result['minutes']:.1f} minutes"


def _list(screen: Screen, found: Study) -> None:
    """The trials of a dry run, and which of them are there already."""
    results = found.results
    waiting = {trial.id for trial in found.unfinished()}
    lines = []
    for trial in found.trials:
        state = results.get(trial.id, {}).get("state", "to be run")
        lines.append({"name": trial.name, "id": trial.id, "state": state, "settings": dict(trial.settings)})
        said = ", ".join(f"{key} {_word(value)}" for key, value in trial.settings.items())
        screen.show(f"{trial.name}  {trial.id}  {state}  {said}")
    screen.note(f"{len(found.trials)} trials, {len(waiting)} to be run in {found.folder}")
    screen.document({"folder": str(found.folder), "trials": lines})


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(found: Study) -> Table:
    from rich import box
    from rich.table import Table

    from binarize.studies.table import HEADS, SHORT, cells

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i in SHORT:
        table.add_column(HEADS[i], justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
    for row in found.rows:
        line = cells(row)
        table.add_row(*(line[i] for i in SHORT))
    return table


def _say_files(screen: Screen, found: Study) -> None:
    names = [
        name
        for name in ("table.md", "table.csv", "table.json", "plot.svg")
        if (found.folder / name).is_file()
    ]
    if "plot.svg" not in names:
        screen.note("no plot: pip install 'torch-binarize[study]' brings matplotlib")
    screen.note(f"wrote {found.folder}: results.jsonl, {', '.join(names)}")


def _failures(failures: Mapping[str, str]) -> str:
    lines = [f"  {name}: {reason.splitlines()[0]}" for name, reason in failures.items()]
    shown: Sequence[str] = lines[:5] if len(lines) <= 5 else [*lines[:4], f"  and {len(lines) - 4} more"]
    trials = "1 trial" if len(failures) == 1 else f"{len(failures)} trials"
    return "\n".join([f"{trials} failed (--retry runs them once more)", *shown])
