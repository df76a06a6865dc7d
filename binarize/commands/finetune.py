"""`binarize finetune`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from binarize.commands.console import choices, data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.disk.file_name import is_folder
from binarize.errors import UsageError
from binarize.report.units import plural
from binarize.training.records.metrics import read_metrics
from binarize.trust import check_data, is_teacher

if TYPE_CHECKING:
    from binarize.schemes.recipe import Recipe
    from binarize.training.data import Preprocessing
    from binarize.training.fit import Settings
    from binarize.training.records.folder import TrainingFolder
    from binarize.training.records.metrics import Row
    from binarize.training.records.run import DataOptions, Run

__all__ = ["finetune"]

# With fewer steps an epoch than these, smaller batches are worth a word.
_FEW_STEPS = 8
_DATA, _RECIPE, _MACHINE = "Data", "Recipe", "Machine"


@command
def finetune(
    screen: Screen,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A converted model's folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A folder of class folders, idx:PATH, torch/cifar10, hfds/NAME, wds/PATH, digits, fake.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="DATA|SHARE|none",
            help="To validate on; default: what belongs to DATA, a tenth of it where that is a test set.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    limit: data_options.Limit = None,
    mean: data_options.Mean = None,
    std: data_options.Std = None,
    data_root: data_options.DataRoot = Path("data"),
    download: data_options.Download = False,
    workers: data_options.Workers = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", min=1, rich_help_panel=_RECIPE)] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.", rich_help_panel=_RECIPE)] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "-b", min=1, help="Of all processes.", rich_help_panel=_RECIPE),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="source|none|SRC|DIR",
            help="The float model unless given; repeatable.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="shift+flip, crop+flip+rand-m9.", rich_help_panel=_RECIPE),
    ] = None,
    two_stage: Annotated[
        bool,
        typer.Option("--two-stage", help="Inputs binary first, then weights too.", rich_help_panel=_RECIPE),
    ] = False,
    stage: Annotated[
        str | None,
        typer.Option(
            metavar="full|layerwise|progressive",
            help="How it becomes binary meanwhile.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="FILE|paper", help="YAML over the scheme's recipe.", rich_help_panel=_RECIPE),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="key=VALUE", help="Any key of the recipe.", rich_help_panel=_RECIPE),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.", rich_help_panel=_MACHINE)] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes a node.", rich_help_panel=_MACHINE)] = 1,
    nodes: Annotated[int, typer.Option(min=1, rich_help_panel=_MACHINE)] = 1,
    precision: Annotated[str, typer.Option(metavar="32|bf16|16", rich_help_panel=_MACHINE)] = "32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory layout of images.", rich_help_panel=_MACHINE)
    ] = False,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Default: DIR itself.", rich_help_panel="What is written"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the training in there.", rich_help_panel="What is written"),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew all the same.", rich_help_panel="What is written")
    ] = False,
    log: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Of csv,tensorboard,wandb,mlflow.", rich_help_panel="What is written"
        ),
    ] = "csv",
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="A checkpoint so often.", rich_help_panel="What is written")
    ] = 5.0,
    source: data_options.Source = None,
    trust: options.Trust = None,
    trust_pickle: options.TrustSource = False,
) -> None:
    """Train a converted model by its scheme's recipe, with the float model as its teacher."""
    with screen.stage("importing"):
        from binarize.checkpoint.load import load
        from binarize.training.finetune import fit_module
        from binarize.training.prepare import prepare
        from binarize.training.recipe import chosen_recipe, one_stage
        from binarize.training.records.folder import TrainingFolder, is_main
        from binarize.training.starts import start_thresholds

        fit = fit_module()
    target = TrainingFolder(out or folder)
    held = screen.hold(target.path, parents=out is not None) if is_main() else None
    if held is not None and held.written and target.record().get("finished"):
        _done(screen, target)
        return
    stored = target.open(resume, force, repeat=True)
    # The same command without --resume goes on too, where all it says is the same.
    known = stored if resume else None
    _note_age(screen, target, stored)
    with screen.stage("loading the model"):
        model = load(folder, source=source)
    changes = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment}
    changes |= _settings(overrides)
    chosen = chosen_recipe(
        model, recipe, changes, stage=one_stage(two_stage, stage), teacher=teacher, stored=known
    )
    shown = data_options.preprocessing(model, mean, std) if mean or std else None
    asked = _Asked(data, _validation(val), limit, data_root, download, shown)
    name, choice = _data(asked, target.record() if resume else {})
    with screen.stage("opening the data"):
        run = prepare(model, name, chosen, teacher=teacher, options=choice, seed=seed, stored=known)
    if stored is not None and not resume:
        target.check_same(run.record(), stored)
        screen.note(f"goes on with the unfinished training in {target.path}, from step {stored['step']}")
    with screen.stage("looking at the thresholds"):
        started = start_thresholds(run)
    _announce(screen, run, started)
    settings = fit.Settings(
        machine=fit.Machine.here(device, devices, nodes, precision),
        workers=workers,
        channels_last=channels_last,
        loggers=tuple(log.split(",")),
        checkpoint_minutes=checkpoint_minutes,
        how_to_resume=_resume(folder, out, source, teacher, trust_pickle),
    )
    rows = _fit(screen, run, settings, target, stored)
    with screen.stage("writing"):
        target.finish(model, run.record())
    _tell(screen, run, target, rows)


def _note_age(screen: Screen, target: TrainingFolder, stored: Mapping[str, Any] | None) -> None:
    if stored is not None and not stored.get("sealed", True):
        screen.note(
            f"{target.checkpoint} is of an older version: no digest tells whether it is what was written"
        )


def _fit(
    screen: Screen, run: Run, settings: Settings, target: TrainingFolder, stored: dict[str, Any] | None
) -> list[Row]:
    """Trains with a bar, and a line for each epoch."""
    from binarize.training import fit

    bar = screen.bar()

    def listen(row: Row) -> None:
        bar.clear()
        _line(screen, run.recipe, row)

    def tick(epoch: int, done: int, batches: int) -> None:
        bar.at(done, batches, f"  epoch {epoch:3}")

    try:
        return fit.fit(run, replace(settings, listen=listen, tick=tick), target, stored)
    finally:
        bar.clear()


def _tell(screen: Screen, run: Run, target: TrainingFolder, rows: list[Row]) -> None:
    """How it ended, where it lies, and what to do with it."""
    from binarize.conversion.conversion import conversion_of

    conversion = conversion_of(run.model)
    if conversion is not None and conversion.report.training is not None:
        screen.show(conversion.report.training.ending)
    screen.note(f"wrote {target.path}; curves are in {target.metrics}")
    screen.next(options.next_command("eval", target.path, run.model))
    screen.document(
        {
            "folder": str(target.path),
            "record": run.record(),
            "rows": rows,
            "result": target.result,
            "seconds": screen.seconds,
        }
    )


def _resume(
    folder: Path, out: Path | None, source: str | None, teachers: list[str] | None, trust_pickle: bool
) -> str:
    """What goes on with this training, as it is typed. What no file may name is named in it once more."""
    words = ["finetune", str(folder), *([] if out is None else ["-o", str(out)]), "--resume"]
    words += [] if source is None else ["--source", source]
    words += ["--trust-pickle"] * trust_pickle
    if not all(is_teacher(name) or is_folder(name) for name in teachers or ()):
        words += [word for name in teachers or () for word in ("--teacher", name)]
    return f"{choices.program()} {shlex.join(words)}"


def _done(screen: Screen, target: TrainingFolder) -> None:
    """For a command that was killed when all was written."""
    record = target.record()
    screen.note(choices.was_done(target.path))
    screen.document(
        {
            "folder": str(target.path),
            "record": {key: value for key, value in record.items() if key not in ("finished", "result")},
            "rows": read_metrics(target.metrics),
            "result": record["result"],
            "seconds": screen.seconds,
        }
    )


@dataclass(frozen=True)
class _Asked:
    """What the options say about the data."""

    data: str | None
    validation: str | float | bool | None
    limit: int | None
    root: Path
    download: bool
    preprocessing: Preprocessing | None


def _data(asked: _Asked, record: dict[str, Any]) -> tuple[str, DataOptions]:
    """(what names the data, how it is opened); for a resumed training what it was, unless it is given again."""
    from binarize.training.data import Preprocessing
    from binarize.training.records.run import DataOptions

    if asked.data is None and not record:
        raise UsageError(
            "say what to train on: --data DATA (a folder of class folders, idx:PATH, torch/cifar10, digits)"
        )
    before, preprocessing = record.get("options", {}), asked.preprocessing
    if preprocessing is None and record.get("preprocessing"):
        preprocessing = Preprocessing.from_json(record["preprocessing"])
    validation, limit, root = asked.validation, asked.limit, asked.root
    if asked.data is not None:
        return asked.data, DataOptions(validation, limit, root, asked.download, preprocessing)
    where = "the training to resume"
    if validation is None:
        validation = before["validation"]
        if isinstance(validation, str):
            check_data(validation, where)
    limit = before["limit"] if limit is None else limit
    # What is fetched goes to where the user says.
    root = root if asked.download else Path(before["root"])
    return check_data(record["data"], where), DataOptions(
        validation, limit, root, asked.download, preprocessing
    )


def _validation(text: str | None) -> str | float | bool | None:
    """None for what belongs to the data, False for none, a share, or a name."""
    if text is None or text.lower() != "none":
        try:
            return None if text is None else float(text)
        except ValueError:
            return text
    return False


def _settings(overrides: list[str] | None) -> dict[str, Any]:
    """Keys of the recipe from key=VALUE, the value as in YAML."""
    from binarize.rules.text import parse_value

    found = {}
    for text in overrides or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'--set "{text}": expected key=VALUE, as in weight_decay=1e-4')
        found[key.strip()] = parse_value(value, f"--set {key}")
    return found


def _announce(screen: Screen, run: Run, started: str | None) -> None:
    """What is about to be trained on what; `started` says where its thresholds come from."""
    from binarize.training.loop.stages import stages_of

    for note in (*run.data.notes, *(run.validation.notes if run.validation is not None else ())):
        screen.note(note)
    held = "none to validate" if run.validation is None else f"{len(run.validation):,} to validate"
    classes = f" of {len(run.data.classes)} classes" if run.data.classes else ""
    screen.show(f"data     {run.data.name}: {len(run.data):,} images{classes}, {held}")
    data_options.show_images(screen, run.model, run.preprocessing)
    screen.show(f"teacher  {run.teachers}")
    recipe = run.recipe
    screen.show(
        f"recipe   {recipe.optimizer}, lr {recipe.lr:g}, {recipe.schedule}, batches of {recipe.batch_size}"
    )
    if (few := _few_steps(len(run.data), recipe.batch_size)) is not None:
        screen.note(few)
    for stage in stages_of(recipe):
        number = f"stage {stage.number}" if stage.of > 1 else "stage"
        screen.show(f"{number:8} {stage.recipe.epochs} epochs, {stage.title}")
    if started is not None:
        screen.note(started)


def _few_steps(images: int, batch: int) -> str | None:
    """What one should know of so few images in so large batches; None where an epoch has steps enough."""
    steps = max(1, images // batch)
    if steps >= _FEW_STEPS:
        return None
    rest = images - steps * batch
    left = f", {plural(rest, 'image')} left out of each" if rest > 0 else ""
    smaller = max(1, images // _FEW_STEPS)
    return (
        f"{plural(images, 'image')} in batches of {batch}: {plural(steps, 'step')} an epoch{left}; "
        f"--batch-size {1 << (smaller.bit_length() - 1)} takes more"
    )


def _line(screen: Screen, recipe: Recipe, row: Row) -> None:
    """What one epoch came to."""
    parts = [f"epoch {row['epoch']:3}", f"loss {row['loss']:.4f}"]
    if row.get("val_top1") is not None:
        parts.append(f"validation {100 * float(row['val_top1'] or 0):5.1f} %")
    if row.get("flips") is not None:
        parts.append(f"flips {100 * float(row['flips'] or 0):5.2f} %")
    parts.append(f"{row['seconds']:.1f} s")
    if row.get("unreadable"):
        parts.append(f"{row['unreadable']} images unreadable, see unreadable.txt")
    stage = f"{row['stage']}: " if recipe.stages else ""
    screen.show(f"  {stage}{'   '.join(parts)}")
