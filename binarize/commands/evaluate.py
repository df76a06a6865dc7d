"""`binarize eval`: accuracy of a converted model, its float model beside it; or of any other model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import choices, complete, data_options, options
from binarize.commands.console.command import command
from binarize.commands.console.screen import Screen
from binarize.disk.atomic import whole_file
from binarize.disk.file_name import is_folder
from binarize.errors import BinarizeError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import nn

    from binarize.training.evaluation.scores import Evaluation

__all__ = ["evaluate"]

# Classes and layers shown without --all: the worst.
_SHOWN = 10


@command
def evaluate(
    screen: Screen,
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR|SRC",
            help="A converted model's folder, or any model.",
            autocompletion=complete.models,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="A folder of class folders, idx:PATH, torch/cifar10, hfds/NAME, wds/PATH, digits, fake.",
            rich_help_panel="Data",
        ),
    ],
    split: Annotated[
        str, typer.Option(metavar="validation|train", help="Of data that has parts.", rich_help_panel="Data")
    ] = "validation",
    limit: data_options.Limit = None,
    mean: data_options.Mean = None,
    std: data_options.Std = None,
    data_root: data_options.DataRoot = Path("data"),
    download: data_options.Download = False,
    workers: data_options.Workers = None,
    batch_size: data_options.BatchSize = 256,
    float_model: Annotated[
        str | None,
        typer.Option(
            "--float", metavar="source|none|SRC", help="To compare with; default: source if it is there."
        ),
    ] = None,
    source: data_options.Source = None,
    trust: options.Trust = None,
    arch: options.Arch = None,
    input_shape: options.InputShape = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    trust_pickle: options.TrustSource = False,
    device: options.Device = "cpu",
    all_rows: options.AllRows = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write FILE.md or FILE.json too.", rich_help_panel="Output"),
    ] = None,
    force: options.Force = False,
) -> None:
    """Accuracy on labelled images: as a whole, by class, and beside the float model."""
    if split not in ("validation", "train"):
        raise UsageError(f'--split "{split}" is neither validation nor train')
    _check_out(screen, out, force)
    with screen.stage("importing"):
        from binarize.checkpoint.load import load
        from binarize.sources import load as load_source
        from binarize.training.evaluate import evaluate as run
        from binarize.training.records.folder import TrainingFolder
    with screen.stage("loading the model"):
        trained_on = TrainingFolder(model).record().get("data")
        if is_folder(model):
            loaded: nn.Module = load(model, source=source)
        else:
            found = load_source(
                model, arch=arch, weights=weights, num_classes=num_classes, trust_pickle=trust_pickle
            )
            loaded = found.module
            screen.note(f"{model} is a float model; `convert` makes it binary")
    reference = _reference(screen, loaded, float_model, is_folder=is_folder(model))
    shown = data_options.preprocessing(loaded, mean, std, _image_size(input_shape))
    data_options.show_images(screen, loaded, shown)
    with screen.stage("evaluating"):
        result = run(
            loaded,
            data,
            reference,
            split=split,
            batch_size=batch_size,
            limit=limit,
            preprocessing=shown,
            root=data_root,
            download=download,
            device=device,
            workers=workers or 0,
        )
    for note in result.notes:
        screen.note(note)
    for line in _tables(result, all_rows):
        screen.show(line)
    if result.split == "train" and (done := _fitted_on(loaded, result.data, trained_on)):
        screen.warn(
            f"{model} was {done} on images of {result.data}: it has seen these, and other images are harder"
        )
    if result.unreadable:
        screen.warn(f"{len(result.unreadable)} images could not be read, the first: {result.unreadable[0]}")
    if out is not None:
        _write(screen, result, out)
    screen.document(result.to_json())


def _write(screen: Screen, result: Evaluation, out: Path) -> None:
    text = json.dumps(result.to_json(), indent=1) if out.suffix == ".json" else result.to_markdown()
    with whole_file(out, follow=True) as draft:
        draft.write_text(text, encoding="utf-8")
    screen.note(f"wrote {out}")


def _image_size(texts: list[str] | None) -> tuple[int, ...] | None:
    """(C, H, W) of --input-shape, which may begin with a batch. Raises: UsageError for what is no image."""
    shape = choices.parse_shape(texts)
    if shape is None:
        return None
    if not isinstance(shape, tuple) or len(shape) not in (3, 4):
        raise UsageError("--input-shape: eval shows images; expected N,C,H,W or C,H,W, as in 1,3,224,224")
    return shape[-3:]


def _fitted_on(model: nn.Module, data: str, trained_on: object) -> str:
    """What was done to the model with this data, in a word; empty where nothing was."""
    from binarize.conversion.conversion import conversion_of

    conversion = conversion_of(model)
    used = {use.by for use in conversion.seen.data if use.name == data} if conversion is not None else set()
    if data == trained_on or "finetune" in used:
        return "trained"
    return "calibrated" if "calibrate" in used else ""


def _check_out(screen: Screen, out: Path | None, force: bool) -> None:
    if out is None:
        return
    if out.suffix not in (".md", ".json"):
        raise UsageError(f"--out {out}: expected a name that ends in .md or .json")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.absolute().parent}")
    force = screen.hold(out).written or force
    if out.exists() and not force:
        raise UsageError(f"{out} exists; --force overwrites it")


def _reference(
    screen: Screen, model: nn.Module, asked: str | None, *, is_folder: bool
) -> nn.Module | str | None:
    """The float model to compare with. Only where nobody asked may it be missing, and that is said."""
    from binarize.training.teachers.find import find_teachers

    if asked is not None:
        return asked
    if not is_folder:
        return None
    try:
        found = find_teachers(model, "source")
    except BinarizeError as error:
        screen.note(f"without the float model: {str(error).splitlines()[0]}; --float names one")
        return None
    if not found.teachers:
        screen.note(f"without the float model: {found.why_none}; --float names one")
        return None
    return found.teachers[0].model


def _tables(result: Evaluation, all_rows: bool) -> list[RenderableType]:
    from rich import box
    from rich.table import Table

    def grid(*columns: str) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for position, column in enumerate(columns):
            table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
        return table

    summary = grid(f"{result.images:,} images of {result.data}", *result.heads)
    for row in result.rows():
        summary.add_row(*row)
    found: list[RenderableType] = [summary]
    if result.model is not None:
        rows = list(zip(result.model.classes, result.class_rows()))
        hidden = 0 if all_rows else max(0, len(rows) - _SHOWN)
        if hidden:
            rows = sorted(rows, key=lambda pair: 1.0 if pair[0].share is None else pair[0].share)[:_SHOWN]
        title = (
            f"class (worst {_SHOWN} of {len(result.model.classes)}, --all shows all)" if hidden else "class"
        )
        classes = grid(title, "images", *result.heads)
        for _, cells in rows:
            classes.add_row(*cells)
        found += ["", classes]
        if mistakes := result.confused_rows():
            confused = grid("confused most often", "taken for", "times")
            for mistake in mistakes if all_rows else mistakes[:_SHOWN]:
                confused.add_row(*mistake)
            found += ["", confused]
    if result.correlation:
        pairs = list(result.correlation.items())
        shown = pairs if all_rows else sorted(pairs, key=lambda pair: pair[1])[:_SHOWN]
        few = len(shown) < len(pairs)
        layers = grid(
            f"layer (least alike {len(shown)} of {len(pairs)})" if few else "layer", "correlation with float"
        )
        for name, value in shown:
            layers.add_row(name, f"{value:.3f}")
        found += ["", layers]
    return found
