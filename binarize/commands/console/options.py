"""Options that several commands take, the same words everywhere, and what they stand for in the library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarize.commands.console import complete
from binarize.commands.console.choices import program
from binarize.disk.file_name import is_there
from binarize.trust import trusting, trusting_pickles

if TYPE_CHECKING:
    from torch import nn

__all__ = ["next_command"]


_MODEL, _DECIDE, _WRITE = "Model", "What is decided", "What is written"

Src = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="vgg11.pt, torchvision:vgg11, timm:resnet18, file.py:make_model, a.safetensors with --arch.",
        autocompletion=complete.models,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="The architecture of a file of weights: torchvision:vgg11.",
        autocompletion=complete.models,
        rich_help_panel=_MODEL,
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        "-i",
        metavar="N,C,H,W",
        help="Default: what the model says. Repeatable, one an input; by name and of a type: ids=1,16:int64.",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="TAG|none", help="Download these weights.", rich_help_panel=_MODEL),
]
NumClasses = Annotated[int | None, typer.Option(min=1, help="A new float head.", rich_help_panel=_MODEL)]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load a file that may run code.", rich_help_panel=_MODEL)
]


def _trusting_pickles(context: typer.Context, said: bool) -> bool:
    """The user's word, for as long as this command runs."""
    if said:
        context.with_resource(trusting_pickles())
    return said


TrustSource = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Let the float model's file run code.",
        callback=_trusting_pickles,
        rich_help_panel=_MODEL,
    ),
]


def _trusting(context: typer.Context, words: list[str] | None) -> list[str] | None:
    """The user's word, for as long as this command runs."""
    for word in words or ():
        if (os.sep in word or word.endswith(".py")) and not is_there(word):
            raise typer.BadParameter(f"{word}: no such file; expected a module, a Python file or a folder")
    context.with_resource(trusting(*words or ()))
    return words


Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE|FILE",
        help="Code of your own that files here may name; repeatable.",
        callback=_trusting,
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=_MODEL)]
Seed = Annotated[int, typer.Option(help="Of everything that is random.", rich_help_panel=_MODEL)]

SchemeName = Annotated[
    str | None,
    typer.Option(
        "--scheme",
        "-s",
        metavar="NAME",
        help="A shipped scheme; default: what --rules says, else adabin.",
        autocompletion=complete.schemes,
        rich_help_panel=_DECIDE,
    ),
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rules",
        "-r",
        metavar="FILE",
        help="A rule file, - for standard input; repeatable, later ones win.",
        rich_help_panel=_DECIDE,
    ),
]
AddShortcuts = Annotated[
    bool | None,
    typer.Option(
        "--add-shortcuts/--no-shortcuts",
        help="Shortcuts where the model has none, or nowhere; default: the scheme's choice.",
        rich_help_panel=_DECIDE,
    ),
]
Shortcuts = Annotated[
    str | None,
    typer.Option(metavar="never|missing|every", help="The same, with all choices.", rich_help_panel=_DECIDE),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Layers that stay float; repeatable.", rich_help_panel=_DECIDE),
]
Binarize = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", help="Layers to binarize whatever the rules say; repeatable.", rich_help_panel=_DECIDE
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="id.field=VALUE", help="Any field of a rule; repeatable.", rich_help_panel=_DECIDE
    ),
]
KeepFirst = Annotated[
    int, typer.Option(min=0, help="So many first layers stay float.", rich_help_panel=_DECIDE)
]
KeepLast = Annotated[
    int, typer.Option(min=0, help="So many last layers stay float.", rich_help_panel=_DECIDE)
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Warnings and unmatched patterns are errors.", rich_help_panel=_DECIDE),
]

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Default: ./<name>-<scheme>", rich_help_panel=_WRITE),
]
Emit = Annotated[
    list[str] | None,
    typer.Option(metavar="folder|pt", help="A folder, a pickled module; repeatable.", rich_help_panel=_WRITE),
]
Reports = Annotated[
    str, typer.Option("--report", metavar="FORMATS", help="Of term,json,md,html.", rich_help_panel=_WRITE)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.", rich_help_panel=_WRITE)]
AllRows = Annotated[
    bool, typer.Option("--all", help="Show every row: fold nothing.", rich_help_panel="Output")
]


def next_command(verb: str, folder: Path, model: nn.Module) -> str:
    """A command that goes on with a folder, with the data that its model was fitted on and the source it needs."""
    from binarize.conversion.conversion import conversion_of
    from binarize.report import words as next_steps

    conversion = conversion_of(model)
    assert conversion is not None, "only converted models come here"
    data = conversion.seen.to_open(labelled=verb == "finetune")
    return next_steps.next_command(
        verb,
        folder,
        program(),
        data=data,
        source=conversion.source_to_say,
        trust_pickle=conversion.source.trusted_pickle,
    )
