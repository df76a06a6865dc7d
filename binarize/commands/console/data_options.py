"""Options that say which images to use and how to show them to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console.screen import Screen
from binarize.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from binarize.training.data import Preprocessing

__all__ = [
    "BatchSize",
    "DataRoot",
    "Download",
    "Limit",
    "Mean",
    "Source",
    "Std",
    "Workers",
    "preprocessing",
    "show_images",
]

_DATA = "Data"

Limit = Annotated[int | None, typer.Option(min=1, help="So many images alone.", rich_help_panel=_DATA)]
DataRoot = Annotated[Path, typer.Option("--data-root", help="Where torch/NAME lies.", rich_help_panel=_DATA)]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch torch/NAME to there.", rich_help_panel=_DATA)
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="X[,Y,Z]", help="Of pixels in 0..1; default: what the model says.", rich_help_panel=_DATA
    ),
]
Std = Annotated[str | None, typer.Option(metavar="X[,Y,Z]", help="The same.", rich_help_panel=_DATA)]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images at a time.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that read images; default: by the data.", rich_help_panel=_DATA),
]
Source = Annotated[
    str | None,
    typer.Option(help="file.py:make_model of a model whose class is your own.", rich_help_panel="Model"),
]


def preprocessing(
    model: nn.Module, mean: str | None, std: str | None, size: Sequence[int] | None = None
) -> Preprocessing:
    """The model's preprocessing with what the options say instead."""
    from binarize.training.data import preprocessing_of

    return preprocessing_of(model, size=size, mean=_numbers("--mean", mean), std=_numbers("--std", std))


def show_images(screen: Screen, model: nn.Module, shown: Preprocessing | None) -> None:
    """One line on how images are shown to the model, and a warning where it remembers otherwise."""
    from binarize.conversion.conversion import conversion_of

    if shown is None:
        return
    screen.show(f"images   {shown}")
    conversion = conversion_of(model)
    if conversion is None or conversion.seen.preprocessing is None:
        return
    if other := shown.differs_from(conversion.seen.preprocessing):
        screen.warn(f"other than remembered from {conversion.seen.shown_by}: there it was {other}")


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(f'{option} "{text}": expected numbers such as 0.485,0.456,0.406') from error
