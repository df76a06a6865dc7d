"""`binarize convert` and `binarize plan`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands import calibrate as calibration
from binarize.commands.console import choices, data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.disk.atomic import check_place, whole_file
from binarize.disk.file_name import is_there
from binarize.disk.leftovers import is_empty
from binarize.errors import UsageError, did_you_mean, refuse_warnings
from binarize.exporters.export import FORMATS, check_format
from binarize.exporters.foresee import foresee
from binarize.schemes.scheme import shortcut_mode

if TYPE_CHECKING:
    from torch import nn

    from binarize.calibration.result import Calibration
    from binarize.conversion.planned import PlannedConversion
    from binarize.report.report import Report

__all__ = ["convert", "plan"]

_FORMATS = ("term", "json", "md", "html")
_EMIT = ("folder", "pt")


@command
def plan(
    screen: Screen,
    src: options.Src,
    scheme: options.SchemeName = None,
    rules: options.Rules = None,
    add_shortcuts: options.AddShortcuts = None,
    shortcuts: options.Shortcuts = None,
    keep: options.Keep = None,
    binarize: options.Binarize = None,
    overrides: options.Set = None,
    keep_first: options.KeepFirst = 1,
    keep_last: options.KeepLast = 1,
    strict: options.Strict = False,
    arch: options.Arch = None,
    input_shape: options.InputShape = None,
    num_classes: options.NumClasses = None,
    trust_pickle: options.TrustPickle = False,
    trust: options.Trust = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(FORMATS),
            help="Say too what `binarize export` could not write for this format.",
        ),
    ] = None,
    all_rows: options.AllRows = False,
) -> None:
    """What would become of each layer, and why. Writes nothing."""
    if target is not None:
        check_format(target, "--target")
    mode = shortcut_mode(add_shortcuts, shortcuts)
    choice = choices.Choice(scheme, rules, mode, keep, binarize, overrides, keep_first, keep_last)
    model = choices.Model(src, arch, input_shape, None, num_classes, trust_pickle, meta=target is None)
    planned = choices.make_plan(screen, model, choices.rule_set(choice))
    refuse_warnings(strict, planned.plan.complaints)
    _show(screen, planned.report, all_rows)
    if target is not None:
        _foresee(screen, planned, target)
    screen.document({"report": planned.report.to_json(), "target": target, "seconds": screen.seconds})


def _foresee(screen: Screen, planned: PlannedConversion, target: str) -> None:
    """Says whether the planned model could be exported. Raises: UsageError, naming all that could not."""
    with screen.stage(f"trying --format {target}"):
        found = foresee(planned.apply(), target)
    if found:
        listed = "\n".join(f"  {one}" for one in found)
        raise UsageError(f"plan --target {target}: the model could not be exported as it is\n{listed}")
    screen.show(f"All of it can be exported: binarize export DIR --format {target}")


@command
def convert(
    screen: Screen,
    src: options.Src,
    scheme: options.SchemeName = None,
    rules: options.Rules = None,
    add_shortcuts: options.AddShortcuts = None,
    shortcuts: options.Shortcuts = None,
    keep: options.Keep = None,
    binarize: options.Binarize = None,
    overrides: options.Set = None,
    keep_first: options.KeepFirst = 1,
    keep_last: options.KeepLast = 1,
    strict: options.Strict = False,
    arch: options.Arch = None,
    input_shape: options.InputShape = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    trust_pickle: options.TrustPickle = False,
    trust: options.Trust = None,
    device: options.Device = "cpu",
    seed: options.Seed = 0,
    out: options.Out = None,
    force: options.Force = False,
    emit: options.Emit = None,
    reports: options.Reports = "term,json,md,html",
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Fit it to the float model on these unlabelled images, as `binarize calibrate` does.",
            rich_help_panel="Calibration",
        ),
    ] = None,
    limit: calibration.Images = None,
    steps: calibration.Steps = 0,
    mean: data_options.Mean = None,
    std: data_options.Std = None,
    data_root: data_options.DataRoot = Path("data"),
    download: data_options.Download = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
    all_rows: options.AllRows = False,
) -> None:
    """Convert a float model; write a folder with the binary model and a report on every layer."""
    formats = _several("--report", reports.split(","), _FORMATS)
    emitted = _several("--emit", emit or ["folder"], _EMIT)
    mode = shortcut_mode(add_shortcuts, shortcuts)
    choice = choices.Choice(scheme, rules, mode, keep, binarize, overrides, keep_first, keep_last)
    rule_set = choices.rule_set(choice)
    folder = out or Path(f"{model_name(src)}-{rule_set.name}")
    if not dry_run:
        force = _may_overwrite(screen, folder, emitted, force)
    if calibrate is None and (limit or steps):
        raise UsageError("--limit and --steps belong to --calibrate DATA, which is not given")
    model = choices.Model(src, arch, input_shape, weights, num_classes, trust_pickle, device, meta=dry_run)
    planned = choices.make_plan(screen, model, rule_set, seed)
    planned.command = shlex.join(["binarize", *sys.argv[1:]])
    found = None
    if dry_run:
        refuse_warnings(strict, planned.plan.complaints)
        report = planned.report
    else:
        with screen.stage("rewriting and checking"):
            # Only this command holds the loaded model: rewriting it in place saves a copy.
            converted = planned.apply(inplace=True, strict=strict)
        kept = calibration.progress_file(folder)
        images = _Images(calibrate, limit, mean, std, data_root, download)
        found = _fit(screen, converted, images, steps=steps, seed=seed, progress=kept)
        if found is not None:
            refuse_warnings(strict, choices.report_of(converted).warnings)
        with screen.stage("writing"):
            report = _write(converted, folder, emitted, formats, force)
        kept.unlink(missing_ok=True)
    if "term" in formats:
        _show(screen, report, all_rows)
    if found is not None:
        calibration.show(screen, found)
    if not dry_run:
        screen.note(f"wrote {', '.join(str(path) for path in _targets(folder, emitted))}")
    screen.document(
        {
            "folder": None if dry_run or "folder" not in emitted else str(folder),
            "report": report.to_json(),
            **({"calibration": found.to_json()} if found is not None else {}),
            "seconds": screen.seconds,
        }
    )


@dataclass(frozen=True)
class _Images:
    """What the options say about the images that a model is fitted on, and how they are shown."""

    data: str | None
    limit: int | None
    mean: str | None
    std: str | None
    root: Path
    download: bool


def _fit(screen: Screen, converted: nn.Module, images: _Images, **how: object) -> Calibration | None:
    """Fits it to the float model as `binarize calibrate` does, where images are named; `how` is that of its `run`."""
    from binarize.conversion.conversion import remember_images

    if images.data is None and images.mean is None and images.std is None:
        return None
    shown = data_options.preprocessing(converted, images.mean, images.std)
    data_options.show_images(screen, converted, shown)
    remember_images(converted, shown, "convert")
    if images.data is None:
        return None
    opened = {"limit": images.limit, "preprocessing": shown, "root": images.root, "download": images.download}
    return calibration.run(screen, converted, images.data, None, **opened, **how)


def model_name(src: str) -> str:
    """What the model is called in file names: vgg11.pt, torchvision:vgg11 and models.py:vgg11() are vgg11."""
    last = src.rstrip("/").rpartition("/")[2] if is_there(src) else re.split(r"[:/]", src.split("(")[0])[-1]
    stem = Path(last).stem if is_there(src) else last
    return re.sub(r"[^\w.-]+", "_", stem) or "model"


def _several(option: str, words: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The words of a list option. Raises UsageError for an unknown one."""
    for word in words:
        if word not in known:
            raise UsageError(f'{option} "{word}" is none of {", ".join(known)}{did_you_mean(word, known)}')
    return tuple(words)


def _targets(folder: Path, emitted: Sequence[str]) -> list[Path]:
    # -o net.pt --emit pt is said by who wants that one file.
    alone = list(emitted) == ["pt"] and folder.suffix == ".pt"
    places = {"folder": folder, "pt": folder if alone else Path(f"{folder}.pt")}
    return [places[kind] for kind in _EMIT if kind in emitted]


def _may_overwrite(screen: Screen, folder: Path, emitted: Sequence[str], force: bool) -> bool:
    """Whether what is there may be replaced, asked before anything is loaded: nobody waits for what cannot be written.

    What the same command wrote before it was killed may.
    """
    targets = _targets(folder, emitted)
    for target in targets:
        check_place(target)
    force = screen.hold(targets[0], parents=True).written or force
    for target in targets:
        if target.exists() and not (force or is_empty(target)):
            raise UsageError(f"{target} exists already; --force replaces it, -o names another")
    return force


def _write(
    model: nn.Module, folder: Path, emitted: Sequence[str], formats: Sequence[str], force: bool
) -> Report:
    """Writes what was asked for; the report with the sizes of the files and what to do next."""
    import torch

    from binarize.calibration.result import is_fitted
    from binarize.checkpoint.load import read_report
    from binarize.checkpoint.save import save
    from binarize.conversion.conversion import conversion_of
    from binarize.report.words import next_commands

    report = choices.report_of(model)
    if "folder" in emitted:
        save(model, folder, force=force, reports=formats)
        conversion = conversion_of(model)
        fitted = conversion is not None and is_fitted(conversion.plan)
        assert conversion is not None
        commands = next_commands(
            folder,
            choices.program(),
            calibrated=fitted,
            seen=conversion.seen,
            source=conversion.source_to_say,
            trust_pickle=conversion.source.trusted_pickle,
        )
        report = replace(read_report(folder), next_commands=commands)
    if "pt" in emitted:
        with whole_file(_targets(folder, emitted)[-1], follow=True) as draft:
            torch.save(model, draft)
    return report


def _show(screen: Screen, report: Report, all_rows: bool) -> None:
    from binarize.report.drawing.terminal import render

    screen.show(render(report, all_rows=all_rows))
