"""`binarize calibrate`: fit a converted model to its float model on unlabelled images."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binarize.commands.console import choices, data_options, options
from binarize.commands.console.bar import Bar
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.disk.leftovers import hidden, place_of
from binarize.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from binarize.calibration.result import Calibration

__all__ = [
    "Images",
    "JointSteps",
    "SearchSigns",
    "Steps",
    "calibrate",
    "progress",
    "progress_file",
    "run",
    "show",
]

_DATA, _HOW, _WRITE = "Data", "Calibration", "What is written"

Images = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="So many images, 2000 unless given.", rich_help_panel=_DATA),
]
Steps = Annotated[int, typer.Option("--steps", min=0, help="Of Adam on each layer.", rich_help_panel=_HOW)]
JointSteps = Annotated[
    int | None,
    typer.Option(
        "--joint-steps", min=0, help="Of all layers at the end; default: twice --steps.", rich_help_panel=_HOW
    ),
]
SearchSigns = Annotated[
    bool,
    typer.Option("--signs/--no-signs", help="Search the signs of each filter too.", rich_help_panel=_HOW),
]


@command
def calibrate(
    screen: Screen,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A converted model's folder.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="A folder of images in folders, idx:PATH, torch/cifar10, hfds/NAME, digits, fake. Labels are not read.",
            rich_help_panel=_DATA,
        ),
    ],
    limit: Images = None,
    mean: data_options.Mean = None,
    std: data_options.Std = None,
    data_root: data_options.DataRoot = Path("data"),
    download: data_options.Download = False,
    fit: Annotated[
        str,
        typer.Option(
            metavar="least-squares|variance", help="Scale and shift of a channel.", rich_help_panel=_HOW
        ),
    ] = "least-squares",
    signs: SearchSigns = True,
    steps: Steps = 0,
    joint_steps: JointSteps = None,
    float_model: Annotated[
        str | None,
        typer.Option(
            "--float",
            metavar="source|none|SRC",
            help="To fit to; default: the model that was converted.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Default: DIR itself.", rich_help_panel=_WRITE)
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="A trained model, or a folder that is there, all the same.",
            rich_help_panel=_WRITE,
        ),
    ] = False,
    source: data_options.Source = None,
    trust: options.Trust = None,
    trust_pickle: options.TrustSource = False,
) -> None:
    """Fit a converted model to its float model on unlabelled images: no labels, no training, minutes on a CPU."""
    with screen.stage("importing"):
        from binarize.checkpoint.load import load
        from binarize.checkpoint.save import replace_model, save
        from binarize.packed.packing import PACKED
        from binarize.training.records.folder import TrainingFolder
    target, kept = out or folder, progress_file(out or folder)
    claim = screen.hold(target, parents=out is not None)
    if claim.written:
        kept.unlink(missing_ok=True)
        screen.note(choices.was_done(target))
        screen.document({"folder": str(target), **claim.found, "seconds": screen.seconds})
        return
    if not force:
        _refuse_loss(folder, out, trained=bool(TrainingFolder(folder).record()))
    with screen.stage("loading the model"):
        model = load(folder, source=source)
    shown = data_options.preprocessing(model, mean, std)
    data_options.show_images(screen, model, shown)
    found = run(
        screen,
        model,
        data,
        float_model,
        fit=fit,
        signs=signs,
        steps=steps,
        joint_steps=joint_steps,
        limit=limit,
        preprocessing=shown,
        root=data_root,
        download=download,
        seed=seed,
        progress=kept,
    )
    show(screen, found)
    claim.keep({"calibration": found.to_json()})
    with screen.stage("writing"):
        if out is None:
            replace_model(model, folder)
        else:
            save(model, out, force=force)
    kept.unlink(missing_ok=True)
    screen.note(f"wrote {target}")
    if (target / PACKED).exists():
        screen.note(
            f"{target / PACKED} is of the model before: {choices.program()} pack {shlex.quote(str(target))} --force"
        )
    screen.next(options.next_command("eval", target, model))
    screen.document({"folder": str(target), "calibration": found.to_json(), "seconds": screen.seconds})


def _refuse_loss(folder: Path, out: Path | None, *, trained: bool) -> None:
    """Raises: UsageError, where something would be lost that nobody said may be."""
    if trained:
        beside = ", -o writes another folder beside it" if out is None else ""
        raise UsageError(
            f"{folder} was trained; calibrating sets its thresholds and scales anew\n"
            f"  --force does it all the same{beside}"
        )
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already; --force replaces it, -o names another")


def progress_file(target: Path) -> Path:
    """Where a calibration keeps what its steps have trained, until what it is for is written."""
    return hidden(place_of(target), "calibration")


def run(screen: Screen, model: nn.Module, data: str, float_model: Any, **choices: Any) -> Calibration:
    """Calibrates with a bar that shows the layer at work; the same command goes on with one that was interrupted."""
    from binarize.training.calibrate import calibrate as fit_model

    bar = screen.bar()
    if choices["progress"].is_file():
        screen.note("a calibration was interrupted here; the same one goes on from there")
    try:
        started = time.perf_counter()
        found = fit_model(model, data, float_model, tick=progress(bar), **choices)
        screen.seconds["calibrating"] = time.perf_counter() - started
        return found
    except KeyboardInterrupt:
        bar.clear()
        if choices["progress"].is_file():
            screen.note("what its steps have trained is kept: the same command goes on from there")
        raise
    finally:
        bar.clear()


def progress(bar: Bar) -> Callable[[str, int, int], None]:
    """What a calibration reports to: (layer, done, of)."""
    return lambda name, done, of: bar.at(done, of, f"  {name}")


def show(screen: Screen, found: Calibration) -> None:
    """What was done, in a few lines."""
    if found.unreadable:
        screen.warn(f"{len(found.unreadable)} images could not be read, the first: {found.unreadable[0]}")
    if found.reference is None:
        screen.note(f"without the float model: {found.why_none}; --float names one")
    screen.show(f"set      {_what_was_set(found)}")
    if found.reference is not None:
        screen.show(f"float    {found.reference}")
    if found.settled_on and found.settled_on < found.images:
        screen.note(f"layers were fitted on the first {found.settled_on} images: more do not fit in memory")
    if found.flipped:
        flips, of = (sum(pair[i] for pair in found.flipped.values()) for i in (0, 1))
        screen.show(f"signs    {flips:,} of {of:,} changed in {len(found.flipped)} layers")
    if found.agreement is not None:
        screen.show(
            f"agrees   with the float model on {100 * found.agreement:.1f} % of the {found.settled_on:,} images that it was "
            "fitted to; on others it is less: eval"
        )


def _what_was_set(found: Calibration) -> str:
    """One line: what was set, from which images, in how many steps."""
    parts = ["thresholds", "BatchNorm statistics"]
    if found.flipped:
        parts.append("signs of weights")
    if found.fitted:
        parts.append(f"scales and shifts by {(found.fit or '').replace('-', ' ')}")
    images = f"{found.images} images" + (f" of {found.data}" if found.data else "")
    steps = f", {found.steps} steps a layer" if found.steps else ""
    joint = f", {found.joint_steps} steps of all layers" if found.joint_steps else ""
    return f"{', '.join(parts[:-1])} and {parts[-1]} from {images}{steps}{joint}"
